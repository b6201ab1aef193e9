"""Parameters of training, and the plan of one run."""

from typing import Any, Literal

from pydantic import Field

from stages.common.params import Section
from stages.losses.config import ClassWeights
from stages.student.config import ViewParams


class AugmentParams(Section):
    """Section `train.augment`: flips, the largest relative changes of colours, and the largest blur (its sigma)."""

    flip: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    saturation: float = Field(ge=0, le=1)
    blur_px: float = Field(ge=0)


class TrainParams(Section):
    """Section `train`."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    defect_share: float = Field(ge=0, le=1)
    augment: AugmentParams
    optimizer: Literal["muon", "adamw"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    validate_every: int = Field(gt=0)
    patience: int = Field(gt=0)


class LoadingParams(Section):
    """Section `loading`: `workers` processes load samples. No byte depends on it, so it is part of no plan."""

    workers: int = Field(ge=0)


class Plan(Section):
    """One run, resolved: only what it uses. `code` holds the SHA-256 of the files of its method and its network.

    `supervision` and `network` are the `Params` of these two files, which whoever loads them checks.
    """

    network: dict[str, Any]
    view: ViewParams
    class_weights: ClassWeights
    supervision: dict[str, Any]
    train: TrainParams
    code: dict[str, str]
