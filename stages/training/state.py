"""All of a training that changes from step to step, to be written to a checkpoint and resumed from it."""

import math
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stages.losses.method import Method
from stages.student.segmenter import Segmenter


@dataclass
class Position:
    """How far a training has come: steps done, sums of the epoch's values so far, rows of the curves, the best so far.

    `best`: weights and buffers (see `Training.changing`) of the average that scored best. `stale`: validations since.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -math.inf
    best: dict[str, Tensor] | None = None
    stale: int = 0


@dataclass(frozen=True)
class Training:
    """All that one step needs and changes. `average`: the student with the average (EMA) of its weights."""

    student: Segmenter
    average: Segmenter
    optimizer: Optimizer
    schedule: LRScheduler
    now: Position
    method: Method

    def state(self) -> dict:
        """Tensors, numbers and containers of them; frozen parameters are left out, because setting up restores them."""
        return {
            "student": self.changing(self.student),
            "average": self.changing(self.average),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "now": dict(vars(self.now)),
            "method": self.method.state_dict(),
        }

    def load(self, state: dict) -> None:
        """Restore what `state()` returned, in a training that was set up in the same way."""
        for network, changed in ((self.student, state["student"]), (self.average, state["average"])):
            network.load_state_dict({**network.state_dict(), **changed})
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        vars(self.now).update(state["now"])
        self.method.load_state_dict(state["method"])

    def changing(self, network: Segmenter) -> dict[str, Tensor]:
        """What training changes of `network`, the student or its average: buffers, and what the student trains."""
        frozen = {name for name, parameter in self.student.named_parameters() if not parameter.requires_grad}
        return {key: value for key, value in network.state_dict().items() if key not in frozen}
