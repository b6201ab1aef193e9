"""The image with its defects tinted and outlined, as JPEG."""

import numpy as np
from PIL import Image
from scipy import ndimage

from stages.data.tables import encoded
from stages.evaluation.palette import colour_of_class
from stages.formats.measured_defects import Record

FILL = 0.35
RIM_SHARE = 1 / 600
"""Thickness of an outline, as a share of the image's longer side; at least 2 px."""


def overlay(image: np.ndarray, record: Record) -> bytes:
    """JPEG of (H, W, 3) uint8 RGB `image`. Outlines are drawn around the defects, on background pixels only.

    Works on a window per defect, so that a large image needs only a copy and one bool per pixel.
    """
    view, background = image.copy(), record.labels() == 0
    rim_px = max(2, round(max(record.size_hw) * RIM_SHARE))
    for defect in record.defects:
        x1, y1, x2, y2 = defect.box_xyxy
        mask = np.pad(defect.mask(record.size_hw), rim_px)
        top, left = max(0, rim_px - y1), max(0, rim_px - x1)
        around = slice(max(0, y1 - rim_px), y2 + rim_px), slice(max(0, x1 - rim_px), x2 + rim_px)
        part = view[around]
        inside = mask[top : top + part.shape[0], left : left + part.shape[1]]
        rim = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=rim_px) & background[around]
        colour = np.array(colour_of_class(defect.class_id))
        part[inside] = ((1 - FILL) * part[inside] + FILL * colour).round()
        part[rim] = colour
    return encoded(Image.fromarray(view), format="JPEG", quality=92, subsampling=0)
