"""Integer confusion counts: summed over a split first, divided once (see metrics.py)."""

import numpy as np

from stages.data.tables import IGNORE


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true and predicted class.

    `truth`: (H, W) uint8 label map, 0 = background, class id + 1 = defect, 255 = ignored.
    `prediction`: (H, W) label map of the same size, without 255. `classes`: K + 1, background included.
    Returns (K+1, K+1) int64, rows truth, columns prediction.
    Raises ValueError when the shapes differ or a label is out of range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape} and prediction {prediction.shape}: they must have one shape")
    counted = truth != IGNORE
    rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for what, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"{what} holds label {labels.max()}; allowed are 0 to {classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)
