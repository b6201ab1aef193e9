"""What rebuilds a trained network: its own parameters, how images reach it, and the backbone it was built on."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from stages.common.errors import UserError
from stages.common.params import Section, parse

CONFIG = "student.json"
"""Lies beside a trained network's weights, and in an export."""


class ViewParams(Section):
    """Section `view`: how an image of any size reaches a network of one size."""

    scale: Literal["native", "stretch"]
    size_px: int = Field(ge=28, multiple_of=2)


class NetworkSection(Section):
    """Base of every network's `Params`: section `network` of params.yaml, told apart by `architecture`."""

    architecture: str

    @property
    def has_binary_head(self) -> bool:
        """Whether the network answers defect or background in a head of its own."""
        return False

    @property
    def least_batch_size(self) -> int:
        """Samples in a training batch that the network needs."""
        return 1


class BackboneConfig(Section):
    """What rebuilds a backbone without a hub, and its input statistics.

    `family`: a `vit` has four taps of one resolution, `taps` being blocks; of a `pyramid` they are feature levels, each
    of half the resolution of the one before or of the same. `timm_kwargs`: `model_name` and other arguments of timm's
    `create_model`.
    """

    name: str
    family: Literal["vit", "pyramid"] = "vit"
    timm_kwargs: dict[str, int | float | bool | str]
    img_size: int = Field(gt=0)
    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[float] = Field(min_length=3, max_length=3)
    taps: list[int] = Field(min_length=4, max_length=4)
    source: str

    @field_validator("timm_kwargs")
    @classmethod
    def _named(cls, kwargs: dict) -> dict:
        if "model_name" not in kwargs:
            raise ValueError("model_name is missing: written by an earlier version, train again (dvc repro)")
        return kwargs


class NetworkConfig(Section):
    """All that rebuilds and runs a trained network; saved beside its weights as `student.json`.

    `network` are the `Params` of `stages/networks/<architecture>.py`. `backbone` is None for a network that needs none.
    `white_level` is the data set's it was trained on. `plan_sha256` is that of the plan it was trained by.
    """

    names: list[str] = Field(min_length=1)
    network: dict[str, Any]
    view: ViewParams
    backbone: BackboneConfig | None
    white_level: float | None = Field(default=None, gt=0)
    plan_sha256: str


def read_config(folder: Path) -> NetworkConfig:
    """The configuration of a trained network or of an export. Raises UserError for anything else."""
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: not a trained student: {' '.join(str(error).split())[:300]}") from None
    if isinstance(values, dict) and "plan_sha256" not in values and values.keys() & {"student", "network"}:
        raise UserError(f"{path}: written by a version before 0.2; train again (dvc repro), or export again")
    return parse(NetworkConfig, values, where=str(path))
