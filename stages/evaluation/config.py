"""Sections `evaluate`, `seeds` and `rows` of params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, model_validator

from stages.common.params import Section
from stages.evaluation.bootstrap import BootstrapParams


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("each value may be listed once only")
    return values


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(min_length=1), AfterValidator(_different)]
"""Section `seeds`: every run is trained once per seed; its scores are means over the seeds."""


Rows = Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
"""Section `rows`: the runs that are trained and compared; the first is the one that the others are compared with."""


class Wish(Section):
    """What an operating point is chosen for, per class; exactly one of three.

    `recall`: least share of the defects that are detected. `false_positives_per_image`: largest number of them.
    `cost`: number of false positives that count as much as one false negative.
    """

    recall: float | None = Field(default=None, gt=0, le=1)
    false_positives_per_image: float | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "Wish":
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of recall, false_positives_per_image and cost is needed")
        return self


def _argmax_or_wish(value: object) -> object:
    # by hand: an error of pydantic's union names its branches, which are no keys of params.yaml
    if isinstance(value, Wish) or value == "argmax":
        return value
    if not isinstance(value, dict):
        raise ValueError("allowed are argmax, {recall: R}, {false_positives_per_image: F} and {cost: C}")
    return Wish.model_validate(value)


OperatingPoint = Annotated[Literal["argmax"] | Wish, PlainValidator(_argmax_or_wish)]


def wish_in_words(wish: str | Mapping[str, float]) -> str:
    """The wish in metrics/RUN.json: `argmax`, or for example `recall 0.9`."""
    return wish if isinstance(wish, str) else ", ".join(f"{key} {value:g}" for key, value in wish.items())


class WeightsNames(Section):
    """Section `weights`, for the model card: stages/checkpoints/config.py says what its names mean."""

    model_config = ConfigDict(extra="ignore")

    teacher: str
    backbone: str


class EvaluateParams(Section):
    """`resolution`: score label maps at the image's own size, or as published, stretched to 518 x 518.
    `operating_point`: argmax, or the wish that thresholds are chosen by."""

    resolution: Literal["native", "stretched_518"]
    operating_point: OperatingPoint
    bootstrap: BootstrapParams

    @model_validator(mode="after")
    def _areas_of_the_image(self) -> "EvaluateParams":
        if self.resolution != "native" and self.operating_point != "argmax":
            raise ValueError(
                f"operating_point: its least areas are in pixels of the image, allowed with resolution = "
                f"{self.resolution} is argmax"
            )
        return self
