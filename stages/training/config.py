"""Parameters of training, and the plan of one run."""

from pydantic import Field

from stages.shell.params import Section
from stages.student.config import StudentParams, ViewParams
from stages.student.kinds import BaselineParams
from stages.supervision.config import LossParams, SelfcorrParams


class AugmentParams(Section):
    """Section `train.augment`: flips, and the largest relative change of brightness and contrast."""

    flip: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)


class TrainParams(Section):
    """Section `train`."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    defect_share: float = Field(ge=0, le=1)
    augment: AugmentParams
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    validate_every: int = Field(gt=0)
    patience: int = Field(gt=0)
    workers: int = Field(ge=0)


class Plan(Section):
    """One run, resolved: only what it uses. `selfcorr` is None for a run that does not self-correct.

    A run trains the student, and then `network` is None, or a baseline, and then `student` is.
    """

    student: StudentParams | None
    network: BaselineParams | None
    view: ViewParams
    loss: LossParams
    selfcorr: SelfcorrParams | None
    train: TrainParams
