"""What rebuilds a trained network: its own parameters, how images reach it, and the backbone it was built on."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from stages.common.params import Section, parse, read_sealed

CONFIG = "student.json"
"""Lies beside a trained network's weights, with their SHA-256 and a checksum of its own."""


N = TypeVar("N", int, float)
Number = Annotated[N, Field(ge=-16_384, le=16_384)]
"""An argument of a network, bounded because a configuration may come from anyone and must not fill the memory."""

MOST_BLOCKS = 100


class ViewParams(Section):
    """Section `view`: how an image of any size reaches a network of one size."""

    scale: Literal["native", "stretch"]
    size_px: int = Field(ge=28, le=16_384, multiple_of=2)


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

    `taps`, counted from 0, shallowest first: of a `vit` four blocks, whose maps have one resolution; of a `pyramid`
    four feature levels, each of the resolution of the one before or half of it. `timm_kwargs`: `model_name` and other
    arguments of timm's `create_model`.
    """

    name: str
    family: Literal["vit", "pyramid"] = "vit"
    timm_kwargs: dict[str, Number[int] | Number[float] | bool | str]
    img_size: int = Field(gt=0, le=16_384)
    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=3, max_length=3)
    taps: list[Annotated[int, Field(ge=0, lt=MOST_BLOCKS)]] = Field(min_length=4, max_length=4)
    source: str

    @field_validator("timm_kwargs")
    @classmethod
    def _opens_nothing(cls, kwargs: dict) -> dict:
        """Refuse arguments by which timm opens files or downloads: a configuration may come from anyone."""
        if "model_name" not in kwargs:
            raise ValueError("model_name is missing: written by an earlier version, train again (dvc repro)")
        if found := {"pretrained", "checkpoint_path", "cache_dir"} & kwargs.keys():
            raise ValueError(f"{min(found)} is not allowed: timm would open it")
        if not re.fullmatch(r"[\w.]+", str(kwargs["model_name"])):
            raise ValueError("model_name: allowed are letters, digits, `_` and `.`; timm would open anything else")
        if kwargs.get("depth", 1) not in range(1, MOST_BLOCKS + 1):
            raise ValueError(f"depth = {kwargs['depth']}: allowed are 1 to {MOST_BLOCKS} blocks")
        return kwargs


class NetworkConfig(Section):
    """All that rebuilds and runs a trained network; saved beside its weights as `student.json`.

    `network` are the `Params` of `stages/networks/<architecture>.py`. `backbone` is None for a network that needs none.
    `white_level`: of the data set that it was trained on. `plan_sha256`: of the plan that it was trained by.
    """

    names: list[str] = Field(min_length=1, max_length=254)
    network: dict[str, Any]
    view: ViewParams
    backbone: BackboneConfig | None
    white_level: float | None = Field(default=None, gt=0)
    plan_sha256: str


def read_student(folder: Path) -> tuple[NetworkConfig, str]:
    """The configuration of a trained network, and the SHA-256 of its weights. Raises UserError for anything else."""
    path = folder / CONFIG
    values = read_sealed(path, "not a trained student; train it again")
    weights = values.pop("weights_sha256", "")
    return parse(NetworkConfig, values, where=str(path)), weights
