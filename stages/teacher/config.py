"""Section `rasterize` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section


class RasterizeParams(Section):
    """How boxes become pseudo-masks.

    `view`: what the teacher's encoder sees, the whole image (as in the paper) or a crop around each box.
    `context`, `min_view_px`: side of a crop, as a multiple of the box's long side, and at least so many native pixels.
    `min_scale`: pixels of the teacher's input per pixel of the image: a box whose view is scaled below is prompted in
    overlapping pieces of this scale too, at most 64 (stages/teacher/windows.py), and the pieces decide where their mask
    stands out from what surrounds it (stages/teacher/prompting.py); null: never.
    `grow`: a box is enlarged on each side by this share of its sides before prompting (drawn too tight); negative:
    shrunk (too loose).
    `parts`: all connected parts of a mask, or those on the line through the box's middle along its longer side.
    `min_part`: parts and holes smaller than this share of a mask's largest part are dropped and filled; 0: kept.
    `candidate`: the teacher's single-mask output (as in the paper), the best of its three others by predicted IoU, or
    all four refined by the image's brightness and the box (stages/teacher/refinement.py).
    `clip_margin`: masks end this far outside their box, as a fraction of the box's width and height; null: not clipped.
    `batch_size`: boxes decoded (and on a GPU crops encoded) together; bounds memory.
    `shard_size`: images per file.
    """

    view: Literal["crop", "whole"]
    context: float = Field(ge=1.0, allow_inf_nan=False)
    min_view_px: int = Field(ge=1)
    min_scale: float | None = Field(gt=0.0, allow_inf_nan=False)
    grow: float = Field(gt=-0.5, le=1.0)
    parts: Literal["all", "centre"]
    min_part: float = Field(ge=0.0, le=1.0)
    candidate: Literal["single", "best", "refined"]
    clip_margin: float | None = Field(ge=0.0, allow_inf_nan=False)
    batch_size: int = Field(ge=1)
    shard_size: int = Field(ge=1)
