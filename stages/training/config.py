"""Parameters of training, and the plan of one run."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from stages.common.params import Section
from stages.losses.config import ClassWeights
from stages.student.config import ViewParams


class AugmentParams(Section):
    """Section `train.augment`: random flips, the largest relative changes of colours, the largest sigma of a blur."""

    flip: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    saturation: float = Field(ge=0, le=1)
    blur_px: float = Field(ge=0, le=100)


class TrainParams(Section):
    """Section `train`; params.yaml explains each field. A step takes `batch_size` samples, in `micro_batches` parts of
    the same size.

    Batch norm and losses see one part at a time; gradients and buffers are averaged in the order of the parts. So the
    result has the same bits for any number of processes that share the parts.
    """

    epochs: int = Field(gt=0, le=1_000_000)
    min_steps: int = Field(ge=0, le=1_000_000)
    batch_size: int = Field(gt=0, le=65_536)
    micro_batches: int = Field(gt=0)
    trusted_share: float = Field(ge=0, le=1)
    defect_share: float = Field(ge=0, le=1)
    augment: AugmentParams
    optimizer: Literal["muon", "adamw"]
    lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=10)
    clip_norm: float = Field(gt=0, le=1_000_000)
    ema_decay: float = Field(ge=0, lt=1)
    validate_every: int = Field(gt=0)
    patience: int = Field(gt=0)

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(f"micro_batches = {self.micro_batches} does not divide batch_size = {self.batch_size}")
        return self


class LoadingParams(Section):
    """Section `loading`: `workers` processes load samples. No result depends on it, so it is in no plan."""

    workers: int = Field(ge=0, le=1024)


class Plan(Section):
    """The parameters that one run uses. `code` holds the SHA-256 of the files of its method and its network.

    `supervision` and `network` hold the `Params` of these two files; the code that loads a file checks its `Params`.
    """

    network: dict[str, Any]
    view: ViewParams
    class_weights: ClassWeights
    supervision: dict[str, Any]
    train: TrainParams
    code: dict[str, str]
