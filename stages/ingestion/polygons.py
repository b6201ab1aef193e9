"""Polygons of YOLO label files as pixels, the same that Ultralytics gives them."""

import numpy as np
from PIL import Image, ImageDraw


def yolo_polygon(shares_xy: np.ndarray, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Place in the image (rows, columns) and (h, w) bool mask of a polygon, which has a pixel at least.

    `shares_xy`: (N, 2) corners in shares of the image's width and height, from 0 to 1. Corners are truncated to whole
    pixels, and the border is drawn too.
    """
    corners = np.minimum((shares_xy * size_hw[::-1]).astype(int), [size_hw[1] - 1, size_hw[0] - 1])
    (left, top), (right, bottom) = corners.min(0).tolist(), (corners.max(0) + 1).tolist()
    canvas = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in (corners - [left, top]).tolist()], fill=1, outline=1)
    return (slice(top, bottom), slice(left, right)), np.array(canvas)
