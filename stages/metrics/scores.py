"""Confusion counts of label maps, and the scores computed from their sums over a split.

TP, FP and FN are pixels counted over the whole split, where large defects decide; `iou_image` counts images. "Binary"
is any defect class against background: a defect pixel predicted as another defect class is a binary true positive.

    iou_<class>    TP / (TP + FP + FN); undefined when the truth has no pixel of the class
    miou           mean IoU over background and the classes that occur in the truth
    miou_anom      the same over defect classes only; undefined when the truth has no defect
    iou_bin        binary IoU; undefined when neither truth nor prediction has a defect pixel
    f1_anom        binary F1 = 2 iou_bin / (1 + iou_bin), defined as in the Boxes2Pixels paper
    recall_bin     binary TP / (TP + FN); undefined when the truth has no defect
    precision_bin  binary TP / (TP + FP); undefined when no defect is predicted
    iou_image      mean of the images' own binary IoU, over those whose truth has a defect

An undefined score is null in JSON and NaN in arrays, never 0, and is left out of means. False positives of a class
that is absent from the truth still lower the IoU of background, the precision, and the IoU of the true class.
"""

from collections.abc import Sequence

import numpy as np

from stages.data.tables import IGNORE

HEADLINES = ("iou_bin", "recall_bin", "precision_bin", "miou_anom", "f1_anom", "miou")


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Number of pixels per true and predicted class.

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


def scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    """Scores of one (K+1, K+1) confusion matrix, rows truth; `names`: the K defect classes; None = undefined."""
    return {key: defined(value) for key, value in score_arrays(counts, names).items()}


def score_arrays(counts: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of many confusion matrices: (..., K+1, K+1) -> key: (...) float64, NaN where undefined.

    Raises ValueError when the number of `names` does not fit the matrices.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape[-2:] != (len(names) + 1, len(names) + 1):
        raise ValueError(f"confusion counts are {counts.shape}, but {len(names)} classes need {len(names) + 1} a side")
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    iou = ratio(correct, np.where(true > 0, true + predicted - correct, 0))

    tp = counts[..., 1:, 1:].sum(axis=(-2, -1))
    true_any, predicted_any = true[..., 1:].sum(axis=-1), predicted[..., 1:].sum(axis=-1)
    result = {
        "miou": _mean(iou),
        "miou_anom": _mean(iou[..., 1:]),
        "f1_anom": ratio(2 * tp, true_any + predicted_any),
        "iou_bin": ratio(tp, true_any + predicted_any - tp),
        "recall_bin": ratio(tp, true_any),
        "precision_bin": ratio(tp, predicted_any),
    }
    return result | {key: iou[..., class_id + 1] for class_id, key in enumerate(class_keys(names))}


def binary_iou(counts: np.ndarray) -> np.ndarray:
    """Binary IoU of (..., K+1, K+1) confusion matrices: (...) float64, NaN where undefined."""
    return score_arrays(counts, [str(class_id) for class_id in range(counts.shape[-1] - 1)])["iou_bin"]


def image_ious(counts: np.ndarray) -> np.ndarray:
    """Binary IoU of images, (..., K+1, K+1) counts -> (...) float64, NaN for those whose truth has no defect."""
    return np.where(counts[..., 1:, :].sum(axis=(-2, -1)) > 0, binary_iou(counts), np.nan)


def class_keys(names: Sequence[str]) -> list[str]:
    """`iou_<name>` per class; underscores are appended where that would be another score's key (a class "bin")."""
    keys: list[str] = []
    taken = _with_bounds("iou_bin") | _with_bounds("iou_image")
    for name in names:
        key = f"iou_{name}"
        while taken & _with_bounds(key):
            key += "_"
        taken |= _with_bounds(key)
        keys.append(key)
    return keys


def defined(value: float | np.ndarray) -> float | None:
    """A number for JSON: NaN becomes None, anything else is rounded to 6 digits."""
    return None if np.isnan(value) else round(float(value), 6)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where `whole` is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _with_bounds(key: str) -> set[str]:
    """The keys of a score and of its confidence interval."""
    return {key, f"{key}_low", f"{key}_high"}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))
