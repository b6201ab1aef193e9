"""Section `rasterize` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.common.params import Section


class RasterizeParams(Section):
    """How boxes become pseudo-masks.

    `view`: what the teacher's encoder sees: the whole image (as in the paper) or a crop around each box.
    `context`, `min_view_px`: side of a crop: this multiple of the box's long side, at least this many native pixels.
    `min_scale`: in pixels of the teacher's input per pixel of the image. A box whose view has a smaller scale is also
    prompted in overlapping pieces of this scale, at most 64 (stages/teacher/windows.py); the masks of the pieces are
    used where they stand out from their surroundings (stages/teacher/prompting.py). null: never.
    `grow`: each side of a box is moved outward by this share of its width or height before prompting, for boxes drawn
    too tight; negative: inward, for loose ones.
    `parts`: `all` connected parts of a mask, or `centre`: those on the line through the box's middle along its longer
    side.
    `min_part`: parts smaller than this share of a mask's largest part are dropped, and holes as small are filled; 0:
    neither.
    `candidate`: `single`, the teacher's single-mask output (as in the paper); `best`, of its three other masks the one
    of highest predicted IoU; `refined`, all four refined by the image's brightness and the box
    (stages/teacher/refinement.py).
    `clip_margin`: how far a mask may reach outside its box, as a share of its width and height; null: no limit.
    `batch_size`: boxes decoded (and on a GPU crops encoded) together; bounds memory.
    `shard_size`: images per file.
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
