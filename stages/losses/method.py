"""What a method of supervision is: one file `stages/methods/NAME.py`, chosen by `supervision.method: NAME`.

It holds `Params` (a `Section` with the field `method: Literal["NAME"]`) and `Method`. A field of `Params` that is
called `fine`, `binary`, `beta` or `selfcorr` is filled from the sections `loss` and `selfcorr` of params.yaml; all
others come from the run's `supervision`. No method imports another: what several need lives in `stages/losses/`.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from stages.common.params import Section
from stages.data.tables import Dataset
from stages.losses.batch import Batch, Moment
from stages.student.config import ViewParams
from stages.student.segmenter import Logits

Named = dict[str, Tensor]
"""Scalars by name."""


class TrainSplit(NamedTuple):
    """What a run learns from, for a method that prepares something before the first step."""

    source: Dataset
    masks: pa.Table  # see stages/masks/shards.py
    candidates: pa.Table
    view: ViewParams
    seed: int


class Method(nn.Module):
    """Base of every method, made once per training. Its buffers are its memory: a checkpoint carries them.

    `augment` and `losses` see one micro-batch, which starts from the buffers of the step before; the mean of what each
    leaves is kept. So what a method counts has to mean the same on any scale, as quantiles of a histogram do.
    """

    reads_boxes = False
    """Whether batches hold boxes with the SAM teacher's candidates."""

    reads_ema = False
    """Whether `losses` is given the logits of the EMA teacher, the moving average of the student."""

    reads_labels = True
    """Whether `losses` learns the labels pixel by pixel. If not, `trusted_loss` is added where some are trusted."""

    def __init__(self, params: Section, split: TrainSplit) -> None:
        super().__init__()
        self.params = params

    def augment(self, batch: Batch, progress: float, draw: np.random.Generator) -> Batch:
        """The batch to learn from, at a share `progress` of the steps, on the CPU as the batch given. Every random
        number comes from `draw`.
        """
        return batch

    def judged_by_masks(self) -> bool:
        """Whether val's pseudo-masks choose the best weights. While not, the last are kept, and nothing stops early."""
        return True

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        """Losses by name, weighted (their sum is minimised), and values for the curves, without gradient.

        `logits`: the student's on `batch.image`. `ema`: the EMA teacher's on `batch.clean`, without gradient.
        A batch without a single box gives finite losses and teaches background. Trusted labels are never changed.
        """
        raise NotImplementedError
