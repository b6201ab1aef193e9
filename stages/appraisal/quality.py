"""Quality of pseudo-masks where truth exists, per box and per pixel, next to label maps with every box filled.

The truth of a box is the set of pixels of its class on the box's own pixels, ignored ones left out; masks are compared
with it there too, so clipping makes no difference. Boxes without a truth pixel of their class are counted and left out
of the means.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from stages.data.boxes import Box, Window, centre_line, corners, pixels_of_box
from stages.data.tables import IGNORE
from stages.masks import rle
from stages.masks.labelmap import fill_boxes
from stages.masks.shards import SCORES
from stages.metrics.scores import confusion, defined, scores

FALLBACKS = ("no_candidate", "empty", "low_probability", "whole_box", "off_centre")
"""Ways in which the mask of a box can have failed: see `fallback`."""

PIXELWISE = ("iou_bin", "recall_bin", "precision_bin", "miou_anom")


class BoxQuality(NamedTuple):
    """IoUs with the truth inside one box; all of them NaN where it has no truth pixel."""

    class_id: int
    box_xyxy: Box
    mask_iou: float  # the chosen candidate
    filled_box_iou: float  # the whole box
    best_candidate_iou: float  # the candidate with the largest IoU
    scores: Mapping[str, float]  # of the chosen candidate, by SCORES


def box_quality(candidates: Sequence[dict], truth: np.ndarray) -> BoxQuality:
    """`candidates`: the rows of one box in the candidates table; `truth`: (H, W) uint8, class id + 1, 255 = ignored."""
    class_id, box = candidates[0]["class_id"], corners(candidates[0])
    window = pixels_of_box(box, truth.shape)
    part = truth[window.y1 : window.y2, window.x1 : window.x2]
    wanted, counted = part == class_id + 1, part != IGNORE
    ious = [_iou(rle.decode_part(row["rle"], truth.shape, window) & counted, wanted) for row in candidates]
    chosen = next(index for index, row in enumerate(candidates) if row["chosen"])
    scores = {key: candidates[chosen][key] for key in SCORES}
    return BoxQuality(class_id, box, ious[chosen], _iou(counted, wanted), max(ious), scores)


def _iou(mask: np.ndarray, wanted: np.ndarray) -> float:
    return float((mask & wanted).sum() / (mask | wanted).sum()) if wanted.any() else float("nan")


def fallback(candidates: Sequence[dict], size_hw: tuple[int, int]) -> str | None:
    """Which of FALLBACKS holds for a box, the first that does; needs no truth.

    `candidates`: its rows in the candidates table; `size_hw`: of its image. `no_candidate`: none has a pixel in the
    box. `empty`: the chosen one has none. `low_probability`: the mean probability of its pixels is at most 0.5, since
    a refined mask may take less probable pixels to span its box (stages/teacher/refinement.py). `whole_box`: the mask
    fills its box. `off_centre`: it has no pixel on the box's centre line, so that `parts: centre` keeps all its parts.
    """
    if not any(row["area_in_box"] for row in candidates):
        return "no_candidate"
    chosen = next(row for row in candidates if row["chosen"])
    if not chosen["area_in_box"]:
        return "empty"
    if chosen["mean_prob_in"] <= 0.5:
        return "low_probability"
    box, (height, width) = corners(chosen), size_hw
    if chosen["area_in_box"] == math.prod(pixels_of_box(box, size_hw).size_hw):
        return "whole_box"
    line = centre_line(box, Window(0, 0, width, height))
    return None if rle.decode_part(chosen["rle"], size_hw, line).any() else "off_centre"


def pixel_counts(labels: np.ndarray, boxes: Sequence[BoxQuality], truth: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts with truth of the label map, and of the image's filled boxes: (2, K+1, K+1), rows truth."""
    filled = fill_boxes([box.class_id for box in boxes], [box.box_xyxy for box in boxes], truth.shape)
    return np.stack([confusion(truth, labels, classes), confusion(truth, filled, classes)])


def summarise(boxes: Sequence[BoxQuality], counts: np.ndarray, names: Sequence[str]) -> dict[str, object]:
    """Metrics of a split from all its boxes and its summed `pixel_counts`; None = undefined."""
    known = [box for box in boxes if not np.isnan(box.filled_box_iou)]
    result: dict[str, object] = {
        "boxes_without_truth": len(boxes) - len(known),
        "per_box": _means(known) | {"spearman_predicted_iou": rank_correlation(known, "sam_pred_iou")},
        "per_box_by_class": {
            name: _means([box for box in known if box.class_id == class_id]) for class_id, name in enumerate(names)
        },
    }
    for title, matrix in zip(("pseudo_masks", "filled_boxes"), counts, strict=True):
        own = scores(matrix, names)
        result[title] = {key: own[key] for key in PIXELWISE}
    return result


def _means(boxes: Sequence[BoxQuality]) -> dict[str, object]:
    keys = ("mask_iou", "filled_box_iou", "best_candidate_iou")
    return {"boxes": len(boxes)} | {
        key: defined(np.mean([getattr(box, key) for box in boxes])) if boxes else None for key in keys
    }


def rank_correlation(boxes: Sequence[BoxQuality], score: str) -> float | None:
    """Spearman's, of one of SCORES with the true IoU; None for fewer than 3 boxes with truth, or if one is constant."""
    pairs = np.array([(box.scores[score], box.mask_iou) for box in boxes if not np.isnan(box.mask_iou)]).reshape(-1, 2)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None
    return defined(float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic))
