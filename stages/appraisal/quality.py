"""How good pseudo-masks are where truth exists: per box, and per pixel of the label maps; beside filling the boxes.

A box's truth is the pixels of its class on the box's own pixels, ignored ones left out; masks are compared with it
there too, so clipping makes no difference. Boxes without a truth pixel of their class are counted and left out of
the means: no mask could be right there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from stages.data.boxes import pixels_of_box
from stages.data.tables import IGNORE
from stages.masks import rle
from stages.masks.labelmap import fill_boxes
from stages.metrics.confusion import confusion
from stages.metrics.scores import defined, scores

PIXELWISE = ("iou_bin", "recall_bin", "precision_bin", "miou_anom")


class BoxQuality(NamedTuple):
    """IoUs with the truth inside one box; all of them NaN where it has no truth pixel."""

    class_id: int
    mask_iou: float  # the chosen candidate
    fill_iou: float  # the whole box
    oracle_iou: float  # the best of all candidates
    predicted_iou: float  # the teacher's own estimate for the chosen candidate
    empty: bool  # the chosen mask has no pixel in its box


def box_quality(candidates: Sequence[dict], truth: np.ndarray) -> BoxQuality:
    """One box: its rows of the candidates table, and (H, W) uint8 truth, class id + 1, 255 = ignored."""
    box = candidates[0]
    window = pixels_of_box((box["x1"], box["y1"], box["x2"], box["y2"]), truth.shape)
    part = truth[window.y1 : window.y2, window.x1 : window.x2]
    wanted, counted = part == box["class_id"] + 1, part != IGNORE
    ious = []
    for row in candidates:
        mask = rle.decode_part(row["rle"], truth.shape, window)
        ious.append(_iou(mask & counted, wanted))
    index = next(index for index, row in enumerate(candidates) if row["chosen"])
    row = candidates[index]
    fill = _iou(counted, wanted)
    return BoxQuality(box["class_id"], ious[index], fill, max(ious), row["sam_pred_iou"], row["area_in_box"] == 0)


def _iou(mask: np.ndarray, wanted: np.ndarray) -> float:
    return float((mask & wanted).sum() / (mask | wanted).sum()) if wanted.any() else float("nan")


def pixel_counts(
    labels: np.ndarray, boxes: Sequence[BoxQuality], corners: Sequence[tuple], truth: np.ndarray, classes: int
) -> np.ndarray:
    """Confusion counts of the label map and of box filling against truth: (2, K+1, K+1), rows truth."""
    filled = fill_boxes([box.class_id for box in boxes], corners, truth.shape)
    return np.stack([confusion(truth, labels, classes), confusion(truth, filled, classes)])


def summarise(boxes: Sequence[BoxQuality], counts: np.ndarray, names: Sequence[str]) -> dict[str, object]:
    """Figures of a split from all its boxes and its summed `pixel_counts`; None = undefined."""
    known = [box for box in boxes if not np.isnan(box.fill_iou)]
    result: dict[str, object] = {
        "boxes_without_truth": len(boxes) - len(known),
        "per_box": _means(known) | {"spearman": _spearman(known)},
        "per_box_of_class": {
            name: _means([box for box in known if box.class_id == class_id]) for class_id, name in enumerate(names)
        },
    }
    for title, matrix in zip(("pseudo_masks", "box_filling"), counts, strict=True):
        figures = scores(matrix, names)
        result[title] = {key: figures[key] for key in PIXELWISE}
    return result


def _means(boxes: Sequence[BoxQuality]) -> dict[str, object]:
    keys = ("mask_iou", "fill_iou", "oracle_iou")
    return {"boxes": len(boxes)} | {key: _mean([getattr(box, key) for box in boxes]) for key in keys}


def _mean(values: Sequence[float]) -> float | None:
    return defined(float(np.mean(values))) if values else None


def _spearman(boxes: Sequence[BoxQuality]) -> float | None:
    """Rank correlation of the teacher's estimate with the IoU itself; undefined where one of them never varies."""
    pairs = np.array([(box.predicted_iou, box.mask_iou) for box in boxes]).reshape(-1, 2)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None
    return defined(float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic))
