"""Section `rasterize` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section


class RasterizeParams(Section):
    """Section `rasterize`: how boxes become pseudo-masks; params.yaml explains each field.

    Pieces of a box, at most 64: stages/teacher/windows.py, and stages/teacher/prompting.py for how their masks are
    joined. `candidate: refined`: stages/teacher/refinement.py.
    """

    view: Literal["crop", "whole"]
    context: float = Field(ge=1.0, le=100.0)
    min_view_px: int = Field(ge=1, le=65_536)
    min_scale: float | None = Field(gt=0.0, le=100.0)
    grow: float = Field(gt=-0.5, le=1.0)
    parts: Literal["all", "centre"]
    min_part: float = Field(ge=0.0, le=1.0)
    candidate: Literal["single", "best", "refined"]
    clip_margin: float | None = Field(ge=0.0, le=100.0)
    batch_size: int = Field(ge=1)
    shard_size: int = Field(ge=1)
