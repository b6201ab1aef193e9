"""What a student is made of: parameters, and all that rebuilds a trained one."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section


class StudentParams(Section):
    """Section `student` of params.yaml."""

    width: int = Field(ge=8, multiple_of=8)
    detail: bool
    binary: bool


class ViewParams(Section):
    """Section `view`: how an image of any size reaches a network of one size."""

    scale: Literal["native", "stretch"]
    size_px: int = Field(ge=28, multiple_of=14)


class BackboneConfig(Section):
    """What rebuilds a backbone without a hub: the arguments of timm's VisionTransformer and the input statistics."""

    name: str
    timm_kwargs: dict[str, int | float | bool | str]
    img_size: int = Field(gt=0)
    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[float] = Field(min_length=3, max_length=3)
    taps: list[int] = Field(min_length=4, max_length=4)
    source: str


class StudentConfig(Section):
    """All that rebuilds and runs a trained student; saved beside its weights."""

    names: list[str] = Field(min_length=1)
    student: StudentParams
    view: ViewParams
    backbone: BackboneConfig
