"""The images that the report shows: which ones, and what is known of each.

Half of the images of a split are those with the largest error, the others are spread evenly over the rest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from stages.data.boxes import Box, corners
from stages.data.images import read_image
from stages.data.tables import BOXES, IGNORE, TRUTH, Dataset, decode_label_map, read_table, stream_rows
from stages.evaluation.predictions import scored, stream_predictions
from stages.evaluation.probabilities import decode_shares
from stages.masks.shards import stream_masks
from stages.metrics.scores import binary_iou, confusion, defined
from stages.reporting.aligned_maps import at_size


class Agreement(NamedTuple):
    """`student`: binary IoU of the student with the truth, or with the pseudo-mask where there is no truth; `teacher`:
    that of the pseudo-mask with the truth, None without it. None where neither of the two has a defect.
    `false_negatives`, `false_positives`: pixels of the student."""

    with_truth: bool
    student: float | None
    teacher: float | None
    false_negatives: int
    false_positives: int

    @property
    def error(self) -> float | None:
        """1 - the student's IoU."""
        return None if self.student is None else 1 - self.student

    @property
    def note(self) -> str:
        """The IoUs in one line."""

        def words(iou: float | None) -> str:
            return "undefined (no defect)" if iou is None else f"{iou:.2f}"

        if self.with_truth:
            return f"binary IoU with truth: student {words(self.student)}, SAM teacher {words(self.teacher)}"
        return f"binary IoU, student with SAM teacher: {words(self.student)}"


def agreement(teacher: np.ndarray, student: np.ndarray, truth: np.ndarray | None, defect_classes: int) -> Agreement:
    """Label maps are (H, W) uint8; `truth` is None where there is none."""
    counts = confusion(teacher if truth is None else truth, student, defect_classes + 1)
    teacher_iou = None
    if truth is not None:  # trusted pixels of the teacher's map may be ignored ones
        known = np.where(teacher == IGNORE, IGNORE, truth)
        teacher_iou = defined(binary_iou(confusion(known, teacher, defect_classes + 1)))
    wrong = int(counts[1:, 0].sum()), int(counts[0, 1:].sum())
    return Agreement(truth is not None, defined(binary_iou(counts)), teacher_iou, *wrong)


@dataclass(frozen=True)
class Case:
    """An image with its boxes (class id, corners in pixels) and label maps, (H, W) uint8, 0 = background,
    class id + 1, 255 = ignored; `rgb` is (H, W, 3) uint8, `truth` None where there is none. `shares`: (K, h, w) uint8
    probabilities of the student, see `evaluation.probabilities`, at a resolution of their own."""

    title: str
    agreement: Agreement
    rgb: np.ndarray
    boxes_xyxy: list[tuple[int, Box]]
    teacher: np.ndarray
    student: np.ndarray
    truth: np.ndarray | None
    shares: np.ndarray | None = None

    @property
    def label_maps(self) -> dict[str, np.ndarray]:
        """Those that there are, by name."""
        maps = {"teacher": self.teacher, "student": self.student, "truth": self.truth}
        return {name: labels for name, labels in maps.items() if labels is not None}


def choose(predictions: Path, classes: int, total: int) -> dict[str, list[str]]:
    """At most `total` image ids per split, worst first; spread over all images where none of the split is scored.

    `predictions`: folder of one student's predictions. `classes`: K + 1, background included.
    """
    everything = {
        split: [row["image_id"] for row in stream_predictions(predictions / f"{split}.parquet", ["image_id"])]
        for split in ("test", "val")
    }
    chosen = {}
    for split, count in split_sizes({split: len(ids) for split, ids in everything.items()}, total).items():
        scored_ids, counts = scored(predictions / f"{split}.parquet", classes)
        chosen[split] = spread(worst_first(scored_ids, counts) if scored_ids else everything[split], count)
    return chosen


def worst_first(image_ids: list[str], counts: np.ndarray) -> list[str]:
    """Image ids by binary error, 1 - IoU against the reference, then by wrong pixels, then by name.

    `counts`: (N, K+1, K+1) per image, rows truth. Images with no defect, true or predicted, come last.
    """
    iou = binary_iou(counts)
    error = np.where(np.isnan(iou), -1.0, 1 - iou)
    wrong = counts[:, 0, 1:].sum(axis=1) + counts[:, 1:, 0].sum(axis=1)
    order = sorted(range(len(image_ids)), key=lambda i: (-error[i], -wrong[i], image_ids[i]))
    return [image_ids[i] for i in order]


def spread(items: list[str], count: int) -> list[str]:
    """At most `count` items in their order: half of them from the front, the others at even steps to the end."""
    if len(items) <= count:
        return items
    front = -(-count // 2)
    steps = np.linspace(front - 1, len(items) - 1, count - front + 1)[1:].round().astype(int)
    return items[:front] + [items[i] for i in steps]


def split_sizes(available: dict[str, int], total: int) -> dict[str, int]:
    """Images per split: two thirds test and the rest val; what one split lacks is taken from the other."""
    test = min(available["test"], max(-(-2 * total // 3), total - available["val"]))
    return {"test": test, "val": min(available["val"], total - test)}


def cases(
    source: Dataset, split: str, image_ids: list[str], predictions: Path, tables: Path, masks: Path, truth: Path
) -> Iterator[Case]:
    """What to show of `image_ids`, in their order; `predictions` as for `choose`."""
    pseudo = _rows(stream_masks(masks / split), image_ids)
    predicted = _rows(stream_predictions(predictions / f"{split}.parquet"), image_ids)
    human = _rows(stream_rows(truth / f"{split}.parquet", TRUTH, "ingest"), image_ids)
    boxes = read_table(tables / split / "boxes.parquet", BOXES)
    for image_id in image_ids:
        row = pseudo[image_id]
        rgb = read_image(source, row)
        teacher = decode_label_map(row["label_map"]["bytes"])
        student = at_size(decode_label_map(predicted[image_id]["mask_png"]), rgb.shape[:2])
        label_map = decode_label_map(human[image_id]["mask_png"]) if image_id in human else None
        shares = predicted[image_id]["shares_png"]
        own = boxes.filter(pc.equal(boxes["image_id"], image_id)).to_pylist()
        yield Case(
            title=image_id,
            agreement=agreement(teacher, student, label_map, len(source.names)),
            rgb=rgb,
            boxes_xyxy=[(box["class_id"], corners(box)) for box in own],
            teacher=teacher,
            student=student,
            truth=label_map,
            shares=shares and decode_shares(shares, len(source.names)),
        )


def _rows(stream: Iterable[dict], image_ids: list[str]) -> dict[str, dict]:
    """Rows of `image_ids`, by id; the others are dropped as they are read."""
    wanted = set(image_ids)
    return {row["image_id"]: row for row in stream if row["image_id"] in wanted}
