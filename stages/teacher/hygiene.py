"""Clean masks: without small parts and small holes, and on request only with the parts on the box's centre line."""

import numpy as np
from scipy.ndimage import label

from stages.data.boxes import Box, Window, centre_line, connected
from stages.teacher.candidates import Candidate, cut
from stages.teacher.config import RasterizeParams


def clean(found: Candidate, box_xyxy: Box, params: RasterizeParams) -> Candidate:
    """The candidate with its mask cleaned as `params.parts` and `params.min_part` say. Its scores stay those of the
    original mask."""
    mask, (left, top, *_) = found.mask, found.tight
    if params.parts == "centre" and mask.any():
        x1, y1, x2, y2 = centre_line(box_xyxy, found.tight)
        mask = parts_on_line(mask, Window(x1 - left, y1 - top, x2 - left, y2 - top))
    if params.min_part and mask.any():
        mask = without_small_parts(mask, params.min_part)
    tight, mask = cut(mask, left, top)
    return found._replace(tight=tight, mask=mask)


def without_small_parts(mask: np.ndarray, min_part: float) -> np.ndarray:
    """`mask`, (H, W) bool and not empty, with parts smaller than `min_part` times its largest part removed and holes
    as small filled."""
    parts, _ = connected(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    least = min_part * areas.max()
    kept = mask & (areas >= least)[parts]
    holes, _ = label(~kept)  # 4-connected
    small = np.bincount(holes.ravel()) < least
    border = np.concatenate([holes[[0, -1]].ravel(), holes[:, [0, -1]].ravel()])
    small[[0, *np.unique(border)]] = False  # background that reaches the border is not a hole
    return kept | small[holes]


def parts_on_line(mask: np.ndarray, line: Window) -> np.ndarray:
    """The parts of `mask` (H, W) bool that have a pixel on `line`, in pixels of the mask; all parts where none has."""
    parts, _ = connected(mask)
    hit = np.unique(parts[line.y1 : line.y2, line.x1 : line.x2])
    return np.isin(parts, hit[hit > 0]) if hit.any() else mask
