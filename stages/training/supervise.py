"""One step's losses: the batch is pasted into, the EMA student is asked, and the run's method judges. No optimiser."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stages.compute.device import multiplies_in_bf16
from stages.losses.batch import Batch, Moment, Named
from stages.methods.config import Supervision
from stages.methods.methods import METHODS
from stages.methods.running_thresholds import Typical
from stages.networks.student import Logits, Segmenter

Paste = Callable[[Batch, float, np.random.Generator], Batch]
"""Copy-paste into a batch at a share of the training, with its draws."""


class Supervisor:
    """A method of supervision at work. `memory` is what it has learnt about its student so far, or None."""

    def __init__(
        self, params: Supervision, class_weights: Tensor, classes: int, seed: int, paste: Paste | None = None
    ) -> None:
        self.params, self.method = params, METHODS[params.method]
        self.class_weights, self.classes, self.seed, self.paste = class_weights, classes, seed, paste
        self.memory = Typical(classes).to(class_weights.device) if self.method.observe else None

    def losses(
        self, student: Segmenter, average: Segmenter, batch: Batch, step: int, steps: int
    ) -> tuple[Named, Named]:
        """Named losses and figures of `batch` at `step` of `steps`; what is drawn depends on (seed, step) alone."""
        progress = step / steps
        if self.paste is not None:
            # a stream of its own: sample number `step` draws from (seed, step)
            batch = self.paste(batch, progress, np.random.default_rng([self.seed, step, 1]))
        logits, teacher, thresholds = logits_of(student, batch.image), None, None
        if self.method.teacher:
            with torch.no_grad():
                teacher = logits_of(average.eval(), batch.clean)
        if self.memory is not None:
            self.memory.update(self.method.observe(batch, teacher, self.classes))
            thresholds = self.memory.thresholds()
        return self.method.losses(logits, batch, self.params, Moment(progress, self.class_weights, thresholds), teacher)


def logits_of(student: Segmenter, images: Tensor) -> Logits:
    """float32 logits of both heads, computed in bfloat16 where that is faster."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=multiplies_in_bf16(images.device)):
        logits = student(images, with_binary=True)
    return Logits(*(part if part is None else part.float() for part in logits))
