"""Operating points: per class, what a threshold on its probability finds and costs; the one that fulfils a wish.

Counted per image and class at each of THRESHOLDS, in pixels and in defects (connected regions, detected at an IoU of at
least 0.1; a predicted region without such a match is a false positive). Each class is counted by itself, and thresholds
are chosen on val by these counts. Where two classes reach their thresholds, `stages.student.decision` decides, which
takes pixels from one of them: so val is predicted once more by the chosen decision, and `reached` says what it gives.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from stages.common.errors import UserError
from stages.data.tables import IGNORE
from stages.evaluation.components import regions
from stages.evaluation.confidence import Confidence, confidence_of
from stages.evaluation.config import OperatingPoint, Wish
from stages.evaluation.defect_metrics import IOUS, OF_A_CLASS, outcome
from stages.evaluation.probabilities import STEPS, shares_of
from stages.metrics.scores import defined, ratio
from stages.student.decision import ARGMAX, Decision, decide, drop_small, softmax

THRESHOLDS = (0.02, *(round(0.05 * step, 2) for step in range(1, 20)), 0.98)
REACHED = [round(threshold * STEPS) for threshold in THRESHOLDS]
"""THRESHOLDS in steps of 1 / STEPS, as `probabilities` stores them."""

SAMPLED_PX = 40_000
"""Calibration is computed on about so many pixels of an image at most, evenly spread."""

IN_MEMORY = 1 << 28
"""Bytes; larger probabilities of an image are kept in a file. With 254 classes, one megapixel has about as many."""

AT_ONCE = 1 << 26
"""Bytes of a strip's logits that are copied at once."""


class Counts(NamedTuple):
    """Of one or several images, K classes and G thresholds. `pixels`: (K, G, 2) true and false positives; `true_px`:
    (K,); `defects`: (K, G, 2) detected and false positives; `true_defects`: (K,); `smallest_px`: (K, G) area of the
    smallest predicted region that detects a defect, infinite without one."""

    images: int
    pixels: np.ndarray
    true_px: np.ndarray
    defects: np.ndarray
    true_defects: np.ndarray
    smallest_px: np.ndarray
    confidence: Confidence

    def __add__(self, other: "Counts") -> "Counts":
        sums = [a + b for a, b in zip(self, other, strict=True)]
        return Counts(*sums)._replace(smallest_px=np.minimum(self.smallest_px, other.smallest_px))


class Watch:
    """Called with each strip of an image while it is predicted (`tiling.predict`): keeps what `counts` needs.

    One byte per pixel and class, beyond IN_MEMORY in an unnamed file in `folder`, and with a `decision` one more for
    the labels that it gives.
    """

    def __init__(
        self, size_hw: tuple[int, int], classes: int, decision: Decision | None = None, folder: Path | None = None
    ) -> None:
        shape = (classes, *size_hw)
        if classes * size_hw[0] * size_hw[1] <= IN_MEMORY:
            self.shares = np.zeros(shape, np.uint8)
        else:
            with tempfile.TemporaryFile(dir=folder) as file:
                self.shares = np.memmap(file, np.uint8, "w+", shape=shape)
        self.labels = None if decision is None else np.zeros(size_hw, np.uint8)
        self.decision = decision
        self.step = max(1, int(np.ceil(np.sqrt(size_hw[0] * size_hw[1] / SAMPLED_PX))))
        self.sampled: list[np.ndarray] = []

    def __call__(self, rows: slice, logits: np.ndarray) -> None:
        self.sampled.append(logits[:, -rows.start % self.step :: self.step, :: self.step].copy())
        some = max(1, AT_ONCE // (4 * len(logits) * logits.shape[2]))
        for first in range(0, logits.shape[1], some):
            part = logits[:, first : first + some]
            place = slice(rows.start + first, rows.start + first + part.shape[1])
            self.shares[:, place] = shares_of(softmax(part.copy())[1:])
            if self.labels is not None:
                self.labels[place] = decide(part.copy(), self.decision)[0]

    def decided(self) -> np.ndarray:
        """(H, W) labels that `decision` gives the whole image."""
        drop_small(self.labels, self.decision)
        return self.labels

    def counts(self, truth: np.ndarray) -> Counts:
        """Counts of the image; `truth`: (H, W) uint8, 255 where ignored."""
        classes, counted = [], truth != IGNORE
        for label, own in enumerate(self.shares, start=1):
            # pixels that reach a threshold: those of its step and of all above
            reach = [
                np.bincount(own[mask], minlength=STEPS + 1)[::-1].cumsum()[::-1][REACHED]
                for mask in (truth == label, counted & (truth != label))
            ]
            classes.append((np.stack(reach, 1), (truth == label).sum(), *_defects(own, truth, label)))
        pixels, true_px, defects, true_defects, smallest = (np.array(each) for each in zip(*classes, strict=True))
        sampled = np.concatenate(self.sampled, axis=1), truth[:: self.step, :: self.step]
        return Counts(1, pixels, true_px, defects, true_defects, smallest, confidence_of(*sampled))


def _defects(own: np.ndarray, truth: np.ndarray, label: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Fields `defects`, `true_defects` and `smallest_px` of one class."""
    found, smallest = np.zeros((len(THRESHOLDS), 2), np.int64), np.full(len(THRESHOLDS), np.inf)
    here = ndimage.find_objects(((own >= REACHED[0]) | (truth == label)).astype(np.uint8))
    if not here:
        return found, 0, smallest
    own, truth = own[here[0]], truth[here[0]]
    reference = np.where(truth == IGNORE, IGNORE, truth == label).astype(np.uint8)
    true = regions(reference)
    for place, least in enumerate(REACHED):
        result = outcome(reference, (own >= least).astype(np.uint8), true)
        good = result.predicted_iou >= IOUS[0]
        found[place] = (result.true_iou >= IOUS[0]).sum(), (~good).sum()
        smallest[place] = result.predicted.areas_px[good].min(initial=np.iinfo(np.int64).max)
    return found, len(true), np.where(found[:, 0] > 0, smallest, np.inf)


def choose(counts: Counts | None, wish: OperatingPoint, classes: int) -> Decision:
    """The decision whose thresholds fulfil `wish` on the counted images, each class counted by itself.

    recall: the highest threshold with at least that recall, else with the best; false_positives_per_image: of those
    with no more than that, else with the fewest, the one that detects most, then with the fewest, then the lowest;
    cost: that with the least false negatives * cost + false positives. A class without a true defect gets 0.5. Regions
    of less than half the smallest one that detected a defect are dropped. The temperature: see
    `Confidence.best_temperature`. Raises UserError for a `Wish` where `counts` is None.
    """
    if counts is None:
        if isinstance(wish, Wish):
            raise UserError("evaluate.operating_point: no image of val has a mask to choose thresholds on; use argmax")
        return ARGMAX
    temperature = counts.confidence.best_temperature()
    if not isinstance(wish, Wish):
        return Decision(temperature=temperature)
    chosen = [_place(counts, class_id, wish) for class_id in range(classes)]
    smallest = [counts.smallest_px[class_id, place] for class_id, place in enumerate(chosen)]
    return Decision(
        thresholds=[THRESHOLDS[place] for place in chosen],
        least_area_px=[max(1, int(area / 2)) if np.isfinite(area) else 1 for area in smallest],
        temperature=temperature,
    )


def _place(counts: Counts, class_id: int, wish: Wish) -> int:
    """Index in THRESHOLDS."""
    detected, false = counts.defects[class_id].T
    true = counts.true_defects[class_id]
    if not true:
        return THRESHOLDS.index(0.5)
    if wish.recall is not None:
        enough = np.flatnonzero(detected >= wish.recall * true)
        return int(enough[-1] if len(enough) else np.flatnonzero(detected == detected.max())[-1])
    if wish.false_positives_per_image is not None:
        # where regions merge at a low threshold there are few false positives, and nothing is detected
        few = np.flatnonzero(false <= max(wish.false_positives_per_image * counts.images, false.min()))
        return int(max(few, key=lambda place: (detected[place], -false[place], -place)))
    price = (true - detected) * wish.cost + false
    return int(np.flatnonzero(price == price.min())[-1])


def reached(classes: Sequence[np.ndarray], wish: OperatingPoint, names: Sequence[str]) -> dict[str, dict | None]:
    """For JSON, what the decision's own labels give: `on_val`, per class OF_A_CLASS, and whether that is `fulfilled`.

    `classes`: of each image of val that was judged, (K, 3) of `counts_by_class`. A recall is not fulfilled where val
    has no defect of the class. None for a cost, which has no bound. argmax is no wish: `on_val` is None, and fulfilled.
    """
    if not isinstance(wish, Wish):
        return {"on_val": None, "fulfilled": dict.fromkeys(names, True)}
    found: dict[str, dict] = {"on_val": {}, "fulfilled": {}}
    for name, (true, detected, false) in zip(names, np.sum(classes, axis=0), strict=True):
        rates = (defined(ratio(detected, true)), defined(ratio(false, len(classes))))
        found["on_val"][name] = dict(zip(OF_A_CLASS, rates, strict=True))
        if wish.recall is not None:
            fulfilled = bool(true > 0 and detected >= wish.recall * true)
        elif wish.false_positives_per_image is not None:
            fulfilled = bool(false <= wish.false_positives_per_image * len(classes))
        else:
            fulfilled = None
        found["fulfilled"][name] = fulfilled
    return found


def curves(counts: Counts, names: Sequence[str]) -> dict[str, object]:
    """For JSON: `thresholds`, per class the lists that belong to them, and the number of `images`."""
    found = {}
    for class_id, name in enumerate(names):
        true_pos, false_pos = counts.pixels[class_id].T
        detected, false = counts.defects[class_id].T
        lists = {
            "precision_px": ratio(true_pos, true_pos + false_pos),
            "recall_px": ratio(true_pos, np.full(true_pos.shape, counts.true_px[class_id])),
            "precision_defects": ratio(detected, detected + false),
            "recall_defects": ratio(detected, np.full(detected.shape, counts.true_defects[class_id])),
            "false_positives_per_image": false / counts.images,
        }
        found[name] = {key: [defined(value) for value in values] for key, values in lists.items()}
    return {"thresholds": list(THRESHOLDS), "classes": found, "images": counts.images}
