"""From summed confusion counts to scores, with every undefined case defined.

Let TP, FP and FN of a class be counted over the whole split. "Binary" is any defect class against background:
a defect found under another class's name is found.

    iou_<class>    TP / (TP + FP + FN); undefined when the truth has no pixel of the class
    miou           mean IoU over background and the classes that the truth has
    miou_anom      the same over defect classes alone; undefined when the truth has no defect
    iou_bin        binary IoU; undefined when there is neither a true nor a predicted defect pixel
    f1_anom        binary F1 = 2 iou_bin / (1 + iou_bin), as published; adds nothing to iou_bin
    recall_bin     TP / (TP + FN); undefined when the truth has no defect
    precision_bin  TP / (TP + FP); undefined when no defect is predicted

An undefined figure is null in JSON and NaN in arrays, never 0, and is left out of means. False alarms of a class
that the truth lacks still count: against background, against precision, and against the class that was there.
"""

from collections.abc import Sequence

import numpy as np

HEADLINES = ("miou", "miou_anom", "f1_anom", "iou_bin", "recall_bin", "precision_bin")


def scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    """Scores of one confusion matrix, (K+1, K+1) with rows truth; `names` the K defect classes; None = undefined."""
    return {key: defined(value) for key, value in figures(counts, names).items()}


def figures(counts: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The same for many confusion matrices at once: (..., K+1, K+1) -> key: (...) float64, NaN where undefined."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape[-2:] != (len(names) + 1, len(names) + 1):
        raise ValueError(f"confusion counts are {counts.shape}, but {len(names)} classes need {len(names) + 1} a side")
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    iou = _ratio(hits, np.where(true > 0, true + predicted - hits, 0))

    found = counts[..., 1:, 1:].sum(axis=(-2, -1))
    true_any, predicted_any = true[..., 1:].sum(axis=-1), predicted[..., 1:].sum(axis=-1)
    result = {
        "miou": _mean(iou),
        "miou_anom": _mean(iou[..., 1:]),
        "f1_anom": _ratio(2 * found, true_any + predicted_any),
        "iou_bin": _ratio(found, true_any + predicted_any - found),
        "recall_bin": _ratio(found, true_any),
        "precision_bin": _ratio(found, predicted_any),
    }
    return result | {key: iou[..., class_id + 1] for class_id, key in enumerate(class_keys(names))}


def class_keys(names: Sequence[str]) -> list[str]:
    """`iou_<name>` for each class; underscores are added where that would be another figure's key (a class "bin")."""
    keys: list[str] = []
    taken = set(_with_bounds("iou_bin"))
    for name in names:
        key = f"iou_{name}"
        while taken & _with_bounds(key):
            key += "_"
        taken |= _with_bounds(key)
        keys.append(key)
    return keys


def defined(value: float | np.ndarray) -> float | None:
    """A number for JSON: NaN becomes None, the rest is rounded to 6 digits."""
    return None if np.isnan(value) else round(float(value), 6)


def _with_bounds(key: str) -> set[str]:
    return {key, f"{key}_low", f"{key}_high"}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))
