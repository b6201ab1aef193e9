"""Which network a run trains: the student or, to compare it with, a baseline; and all that rebuilds a trained one."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section, parse
from stages.student.config import StudentConfig, ViewParams

Encoder = Literal[
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet-b0",
    "efficientnet-b2",
    "mit_b0",
    "mit_b2",
]


class NetworkParams(Section):
    """Section `network` of params.yaml. All but `architecture` is for baselines."""

    architecture: Literal["student", "unet", "deeplabv3", "segformer"]
    encoder: Encoder
    encoder_weights: Literal["imagenet"] | None
    decoder_width: int = Field(ge=16, multiple_of=16)


class BaselineParams(NetworkParams):
    """The same section in the plan of a run that trains a baseline."""

    architecture: Literal["unet", "deeplabv3", "segformer"]


class BaselineConfig(Section):
    """All that rebuilds and runs a trained baseline; saved beside its weights, where a student has `StudentConfig`."""

    names: list[str] = Field(min_length=1)
    network: BaselineParams
    view: ViewParams


def parse_config(values: object, where: str) -> StudentConfig | BaselineConfig:
    """The contents of a `student.json`, whichever network lies beside it. UserError starts with `where`."""
    baseline = isinstance(values, dict) and "network" in values
    return parse(BaselineConfig if baseline else StudentConfig, values, where)
