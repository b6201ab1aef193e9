"""Symmetric cross-entropy (Wang et al., arXiv 1908.06112) in place of the fine head's cross-entropy.

The reverse cross-entropy, in which label and prediction change places, is bounded: a wrong label costs a confident
student no more than `-floor`. The binary head learns as in Boxes2Pixels; labels are not corrected.
"""

from typing import Literal

from pydantic import Field

from stages.losses.batch import Batch, Moment
from stages.losses.config import HeadWeights
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.pixel import binary_loss, generalised_cross_entropy, weighted_cross_entropy
from stages.student.segmenter import Logits


class Params(HeadWeights):
    """`beta`: of the section `loss`. `forward`, `reverse`: weights of the two cross-entropies (paper, CIFAR-10: 0.1 and
    1.0). `floor`: value that replaces log 0 (paper: -4)."""

    method: Literal["sce"]
    beta: float | None = Field(ge=0)
    forward: float = Field(ge=0)
    reverse: float = Field(gt=0)
    floor: float = Field(lt=0)


class Method(BaseMethod):
    """Losses `fine` and `binary`."""

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, labels, weights = self.params, batch.labels, moment.class_weights
        forward = params.forward * weighted_cross_entropy(logits.fine, labels, weights)
        # for one-hot labels the reverse term is w[label] (-floor) (1 - p[label])
        reverse = -params.floor * generalised_cross_entropy(logits.fine, labels, weights, q=1.0)
        named = {"fine": params.fine * (forward + params.reverse * reverse)}
        if logits.binary is not None:
            named["binary"] = params.binary * binary_loss(logits.binary, labels, params.beta)
        return named, {}
