"""What perfect labels would give: the losses of Boxes2Pixels on trusted pixels alone; pseudo-masks are not read.

It is for comparison only. The gap from another run of the same network to this one is due to that run's labels; the
gap from this one to a perfect score is due to the network. It needs images of train with trusted masks
(`data.trusted`), and the report marks it as not comparable.
"""

from typing import Literal

import torch
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Section
from stages.data.tables import IGNORE
from stages.losses.batch import Batch, Moment
from stages.losses.config import HeadWeights
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named, TrainSplit
from stages.losses.pixel import binary_loss, weighted_cross_entropy
from stages.student.segmenter import Logits


class Params(HeadWeights):
    """`fine`, `binary` and `beta`: of the section `loss`."""

    method: Literal["truth"]
    beta: float | None = Field(ge=0)


class Method(BaseMethod):
    """Losses `fine` and `binary`. Raises UserError when no image of train has a trusted mask."""

    def __init__(self, params: Section, split: TrainSplit) -> None:
        super().__init__(params, split)
        if split.masks["trusted"].null_count == len(split.masks):
            raise UserError("supervision.method = truth: no image of train has a trusted mask; data.trusted names them")

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, labels = self.params, torch.where(batch.trusted, batch.labels, IGNORE)
        named = {"fine": params.fine * weighted_cross_entropy(logits.fine, labels, moment.class_weights)}
        if logits.binary is not None:
            named["binary"] = params.binary * binary_loss(logits.binary, labels, params.beta)
        return named, {}
