"""The methods of supervision by name, and what each is to be given. What none reads is neither decoded nor run."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from stages.losses.batch import Batch, Moment, Named
from stages.methods import boxes2pixels, boxinst, boxseg, boxteacher, discobox, two_sided
from stages.methods.config import Supervision
from stages.methods.running_thresholds import Seen
from stages.networks.student import Logits


class Losses(Protocol):
    """See batch.py."""

    def __call__(
        self, logits: Logits, batch: Batch, params: Supervision, moment: Moment, teacher: Logits | None
    ) -> tuple[Named, Named]: ...


class Method(NamedTuple):
    """A method's losses, and what they read beside the student's logits and the labels."""

    losses: Losses
    boxes: bool = True  # boxes and SAM's candidates
    teacher: bool = True  # the EMA student's logits
    observe: Callable[[Batch, Logits, int], Seen] | None = None  # thresholds learnt of what this counts in a batch


METHODS = {
    "boxes2pixels": Method(boxes2pixels.losses, boxes=False, teacher=False),
    "two_sided": Method(two_sided.losses, observe=two_sided.observe),
    "boxinst": Method(boxinst.losses, teacher=False),
    "discobox": Method(discobox.losses),
    "boxteacher": Method(boxteacher.losses),
    "boxseg": Method(boxseg.losses),
}
