"""Clean masks: no specks, no pores, and on request only the parts on the box's centre line."""

import numpy as np
from scipy.ndimage import label

from stages.data.boxes import Box, Window
from stages.teacher.candidates import Candidate, bounds
from stages.teacher.config import RasterizeParams

EIGHT = np.ones((3, 3))
"""Pixels that touch at a corner belong to one part; holes are 4-connected."""


def clean(found: Candidate, box_xyxy: Box, params: RasterizeParams) -> Candidate:
    """The candidate with a clean mask as `parts` and `min_part` say; its scores stay those of the mask as it was."""
    mask, (left, top, *_) = found.mask, found.tight
    if params.parts == "centre" and mask.any():
        mask = touching(mask, centre_line(box_xyxy, found.tight))
    if params.min_part and mask.any():
        mask = without_small_parts(mask, params.min_part)
    tight = bounds(mask)
    place = Window(left + tight.x1, top + tight.y1, left + tight.x2, top + tight.y2)
    return found._replace(mask=mask[tight.y1 : tight.y2, tight.x1 : tight.x2], tight=place)


def without_small_parts(mask: np.ndarray, min_part: float) -> np.ndarray:
    """(H, W) bool, not empty, without parts and with filled holes smaller than `min_part` times its largest part."""
    parts, _ = label(mask, EIGHT)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    least = min_part * areas.max()
    kept = mask & (areas >= least)[parts]
    holes, _ = label(~kept)
    small = np.bincount(holes.ravel()) < least
    border = np.concatenate([holes[[0, -1]].ravel(), holes[:, [0, -1]].ravel()])
    small[[0, *np.unique(border)]] = False  # what reaches the border is no hole
    return kept | small[holes]


def touching(mask: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The parts of a mask (H, W) bool that have a pixel on `line`, of the same shape; all of them where none has."""
    parts, _ = label(mask, EIGHT)
    return np.isin(parts, hit) if len(hit := np.unique(parts[line & mask])) else mask


def centre_line(box_xyxy: Box, place: Window) -> np.ndarray:
    """(H, W) bool on `place`: the row or column of pixels through the box's middle along its longer side."""
    x1, y1, x2, y2 = box_xyxy
    line = np.zeros(place.size_hw, bool)
    if x2 - x1 >= y2 - y1:
        row = int((y1 + y2) / 2) - place.y1
        line[max(row, 0) : max(row + 1, 0)] = True
    else:
        column = int((x1 + x2) / 2) - place.x1
        line[:, max(column, 0) : max(column + 1, 0)] = True
    return line
