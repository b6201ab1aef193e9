"""The gradients of one step, from its micro-batches: the same bits for any number of processes that share these.

Each micro-batch starts from the same weights and buffers (of batch norms, and of what the method remembers), and its
number decides its random numbers. Gradients, buffers and the values for the curves are means, summed in the order of
the micro-batches. PyTorch's DistributedDataParallel could not promise this: batch norm and Dice are not linear in the
batch, and the buffers of its processes drift apart.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from stages.compute.device import autocast
from stages.losses.batch import Batch, Moment
from stages.losses.pixel import trusted_loss
from stages.student.segmenter import Logits, Segmenter
from stages.training.processes import Processes
from stages.training.state import Training


def average_gradients(
    training: Training,
    moment: Moment,
    seeds: tuple[int, int],
    own: Sequence[tuple[int, Batch]],
    device: torch.device,
    processes: Processes,
) -> tuple[dict[str, float], int]:
    """Set the student's gradients, and all floating-point buffers, to their means over the micro-batches of a step.

    `own`: number and batch of each micro-batch of this process. `seeds`: torch's, and that of the samples.
    Returns the values for the curves, and the number of a signal that has arrived in any of the processes, or 0.
    """
    student = training.student
    buffers = [*student.buffers(), *training.method.buffers()]
    before = [buffer.clone() for buffer in buffers] if len(own) > 1 else buffers
    floating = [buffer for buffer in buffers if buffer.is_floating_point()]
    rows: list[Tensor] = []
    for number, batch in own:
        for buffer, start in zip(buffers, before, strict=True):
            if buffer is not start:
                buffer.copy_(start)
        training.optimizer.zero_grad(set_to_none=True)
        shown = backward(training, moment, seeds, number, batch, device)
        gradients = [parameter.grad for parameter in student.trainable().values() if parameter.grad is not None]
        scalars = [*shown.values(), torch.tensor(processes.stop_flag, device=device)]
        rows.append(torch.cat([value.detach().reshape(-1).float() for value in (*gradients, *floating, *scalars)]))
    every = processes.stacked(torch.stack(rows))
    mean = mean_in_order(every)
    into = [*gradients, *floating]
    for target, value in zip(into, mean.split([*(len(t.reshape(-1)) for t in into), len(shown) + 1]), strict=False):
        target.copy_(value.reshape(target.shape))
    values = dict(zip(shown, mean[-len(shown) - 1 : -1].tolist(), strict=True))
    return values, int(every[:, -1].max())


def backward(
    training: Training, moment: Moment, seeds: tuple[int, int], number: int, batch: Batch, device: torch.device
) -> dict[str, Tensor]:
    """Add the gradients of micro-batch `number` to the student's. `batch` is on the CPU, the student on `device`.

    Returns the values for the curves.
    """
    method, step, (seed, samples_seed) = training.method, training.now.step, seeds
    # numpy pads short seeds with zeros: micro-batch 0 draws what the seeds without its number would give
    torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))
    # the 1 separates this stream from that of sample number `step`, which is seeded with (seed, step)
    draw = np.random.default_rng([samples_seed, step, 1, number])
    batch, ema = method.augment(batch, moment.progress, draw).to(device), None
    logits = logits_of(training.student, batch.image)
    if method.reads_ema:
        with torch.no_grad():
            ema = logits_of(training.average.eval(), batch.clean)
    named, shown = method.losses(logits, batch, moment, ema)
    if batch.trusted is not None and not method.reads_labels:
        weights = method.params.fine, method.params.binary
        named = named | {"trusted": trusted_loss(logits, batch, moment.class_weights, *weights)}
    loss = sum(named.values())
    loss.backward()
    return {"loss": loss} | {f"loss_{name}": value for name, value in named.items()} | shown


def mean_in_order(rows: Tensor) -> Tensor:
    """(n,) mean of (M, n) `rows`, summed from the first to the last; where all are equal it is exactly that value."""
    return torch.where((rows == rows[0]).all(0), rows[0], reduce(torch.add, rows.unbind()) / len(rows))


def logits_of(student: Segmenter, images: Tensor) -> Logits:
    """float32 logits of both heads, computed in bfloat16 where that is faster."""
    with autocast(images.device):
        logits = student(images, with_binary=True)
    return Logits(*(part if part is None else part.float() for part in logits))
