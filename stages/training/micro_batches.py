"""The gradients of one step, from its micro-batches: the same bits for any number of processes that share them out.

Each micro-batch starts from the same weights, buffers (of batch norms, and of what the method remembers) and, by its
number, random numbers. Gradients, buffers and the values for the curves are their means, summed in the micro-batches'
order. "DDP equals one process" is no promise that gradients averaged by the way can keep: batch norm and Dice are not
linear in the batch, and its processes' buffers drift apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from stages.compute.device import multiplies_in_bf16
from stages.losses.batch import Batch, Moment
from stages.losses.pixel import trusted_loss
from stages.student.segmenter import Logits, Segmenter
from stages.training.processes import Processes
from stages.training.state import Training


@dataclass(frozen=True)
class MicroBatches:
    """Those of one step. `seeds`: torch's, and that of the samples."""

    training: Training
    moment: Moment
    seeds: tuple[int, int]
    device: torch.device

    def run(self, own: Sequence[tuple[int, Batch]], processes: Processes) -> tuple[dict[str, float], int]:
        """Leave in the student the gradients of all micro-batches, of which this process has `own` by number.

        Returns the values for the curves, and the number of a signal that has arrived in a process, else 0.
        """
        student, method = self.training.student, self.training.method
        buffers = [*student.buffers(), *method.buffers()]
        before = [buffer.clone() for buffer in buffers] if len(own) > 1 else buffers
        floating = [buffer for buffer in buffers if buffer.is_floating_point()]
        rows: list[Tensor] = []
        for number, batch in own:
            for buffer, start in zip(buffers, before, strict=True):
                if buffer is not start:
                    buffer.copy_(start)
            self.training.optimizer.zero_grad(set_to_none=True)
            shown = self._backward(number, batch.to(self.device))
            gradients = [parameter.grad for parameter in student.trainable().values() if parameter.grad is not None]
            scalars = [*shown.values(), torch.tensor(processes.stop_flag, device=self.device)]
            rows.append(torch.cat([value.detach().reshape(-1).float() for value in (*gradients, *floating, *scalars)]))
        every = processes.stacked(torch.stack(rows))
        mean = mean_in_order(every)
        into = [*gradients, *floating]
        for target, value in zip(into, mean.split([*(len(t.reshape(-1)) for t in into), len(shown) + 1]), strict=False):
            target.copy_(value.reshape(target.shape))
        values = dict(zip(shown, mean[-len(shown) - 1 : -1].tolist(), strict=True))
        return values, int(every[:, -1].max())

    def _backward(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """The gradients of micro-batch `number` are the student's; returns the values for the curves."""
        training, method, step = self.training, self.training.method, self.training.now.step
        seed, samples_seed = self.seeds
        # of micro-batch 0 these are the seeds without it: numpy fills short ones up with zeros
        torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))
        # a stream of its own: sample number `step` draws from (seed, step)
        draw = np.random.default_rng([samples_seed, step, 1, number])
        batch, ema = method.augment(batch, self.moment.progress, draw), None
        logits = logits_of(training.student, batch.image)
        if method.reads_ema:
            with torch.no_grad():
                ema = logits_of(training.average.eval(), batch.clean)
        named, shown = method.losses(logits, batch, self.moment, ema)
        if batch.trusted is not None and not method.reads_labels:
            weights = method.params.fine, method.params.binary
            named = named | {"trusted": trusted_loss(logits, batch, self.moment.class_weights, *weights)}
        loss = sum(named.values())
        loss.backward()
        return {"loss": loss} | {f"loss_{name}": value for name, value in named.items()} | shown


def mean_in_order(rows: Tensor) -> Tensor:
    """(n,) mean of (M, n) `rows`, summed from the first to the last; where all are equal it is just that value."""
    return torch.where((rows == rows[0]).all(0), rows[0], reduce(torch.add, rows.unbind()) / len(rows))


def logits_of(student: Segmenter, images: Tensor) -> Logits:
    """float32 logits of both heads, computed in bfloat16 where that is faster."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=multiplies_in_bf16(images.device)):
        logits = student(images, with_binary=True)
    return Logits(*(part if part is None else part.float() for part in logits))
