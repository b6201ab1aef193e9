"""A simulated human annotator: boxes that are a little loose or tight."""

import numpy as np


def drawn_box(rng: np.random.Generator, mask: np.ndarray) -> tuple[float, float, float, float]:
    """Box xyxy in px around the True pixels of `mask` (H, W), inaccurate as a human draws it, inside the image.

    Each side is off by a pixel or two, or by some per cent of the defect where that is more, outward more often than
    inward; it never cuts off more than an eighth of the defect's width or height.
    """
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x1, x2, y1, y2 = columns[0], columns[-1] + 1.0, rows[0], rows[-1] + 1.0
    sides_px = np.asarray([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    outward = rng.normal(0.5, 0.8, 4) * np.maximum(1.5, 0.05 * sides_px)
    left, top, right, bottom = np.maximum(outward, -sides_px / 8)
    return max(x1 - left, 0.0), max(y1 - top, 0.0), min(x2 + right, float(width)), min(y2 + bottom, float(height))


def yolo_line(class_id: int, box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> str:
    """The line `class cx cy w h` of a YOLO label file: normalised by width and height, 6 decimals."""
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    cx, cy, w, h = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return f"{class_id} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}"
