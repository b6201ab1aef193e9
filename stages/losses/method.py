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
    """Base of every method, made once per training. What it remembers is in its buffers, so that checkpoints hold it.

    `augment` and `losses` see one micro-batch and start from the buffers of the step before; the buffers are then
    averaged over the micro-batches. So what a method reads from counts must not depend on their scale: quantiles of a
    histogram do not.
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
        """The batch to learn from, after a share `progress` of the steps, on the CPU like `batch`. All random numbers
        come from `draw`.
        """
        return batch

    def judged_by_masks(self) -> bool:
        """Whether val's pseudo-masks choose the best weights. If not, the last ones are kept, at every validation, and
        training does not stop early.
        """
        return True

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        """Losses by name, weighted (their sum is minimised), and values for the curves, without gradient.

        `logits`: the student's on `batch.image`. `ema`: the EMA teacher's on `batch.clean`, without gradient.
        A batch without a single box gives finite losses and teaches background. Trusted labels are never changed.
        """
        raise NotImplementedError
