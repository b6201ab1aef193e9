"""Generalised cross-entropy (Zhang and Sabuncu, arXiv 1805.07836) in place of the fine head's cross-entropy.

Its gradient is that of cross-entropy times p[label]^q: a pixel whose label the student finds unlikely counts less, and
the larger q is, the less it counts. Trusted pixels learn by cross-entropy, the binary head learns as in Boxes2Pixels;
labels are not corrected.
"""

from typing import Literal

from pydantic import Field

from stages.losses.batch import Batch, Moment
from stages.losses.config import HeadWeights
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.pixel import binary_loss, generalised_cross_entropy
from stages.student.segmenter import Logits


class Params(HeadWeights):
    """`beta`: of the section `loss`. `q`: near 0 it is cross-entropy, at 1 mean absolute error (paper: 0.7)."""

    method: Literal["gce"]
    beta: float | None = Field(ge=0)
    q: float = Field(gt=0, le=1)


class Method(BaseMethod):
    """Losses `fine` and `binary`."""

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, labels = self.params, batch.labels
        fine = generalised_cross_entropy(logits.fine, labels, moment.class_weights, params.q, batch.trusted)
        named = {"fine": params.fine * fine}
        if logits.binary is not None:
            named["binary"] = params.binary * binary_loss(logits.binary, labels, params.beta)
        return named, {}
