"""From tables and predictions to the pictures of a split."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from stages.dataset.photos import read_photo
from stages.dataset.tables import BOXES, TRUTH, Dataset, decode_label_map, read_table
from stages.reporting.overlays import Case
from stages.scoring.confusion import confusion
from stages.scoring.metrics import scores
from stages.teacher.shards import read_masks


def cases(
    source: Dataset, split: str, image_ids: list[str], predictions: pa.Table, tables: Path, masks: Path, truth: Path
) -> Iterator[Case]:
    """What to draw for `image_ids`, in their order; `predictions` are the rows of the run to show."""
    photos = _by_image(read_masks(masks / split), image_ids)
    predicted = _by_image(predictions, image_ids)
    human = _by_image(read_table(truth / f"{split}.parquet", TRUTH), image_ids)
    boxes = read_table(tables / split / "boxes.parquet", BOXES)
    for image_id in image_ids:
        row = photos[image_id]
        photo = read_photo(source.root, row["path"], row["sha256"], row["exif_orientation"])
        teacher = decode_label_map(row["label_map"]["bytes"])
        student = _at_size(decode_label_map(predicted[image_id]["mask_png"]), photo.shape[:2])
        label_map = decode_label_map(human[image_id]["mask_png"]) if image_id in human else None
        drawn = boxes.filter(pc.equal(boxes["image_id"], image_id)).to_pylist()
        yield Case(
            title=image_id,
            note=agreement(teacher, student, label_map, len(source.names)),
            photo=photo,
            boxes_xyxy=[(box["class_id"], (box["x1"], box["y1"], box["x2"], box["y2"])) for box in drawn],
            teacher=teacher,
            student=student,
            truth=label_map,
        )


def agreement(teacher: np.ndarray, student: np.ndarray, truth: np.ndarray | None, defect_classes: int) -> str:
    """One line of binary IoU on one photograph: of student and teacher with the truth, else of student with teacher."""
    names = [str(class_id) for class_id in range(defect_classes)]

    def iou(reference: np.ndarray, other: np.ndarray) -> str:
        value = scores(confusion(reference, other, defect_classes + 1), names)["iou_bin"]
        return "no defect in either" if value is None else f"{value:.2f}"

    if truth is None:
        return f"binary IoU, student with teacher: {iou(teacher, student)}"
    return f"binary IoU with truth: student {iou(truth, student)}, teacher {iou(truth, teacher)}"


def _by_image(table: pa.Table, image_ids: list[str]) -> dict[str, dict]:
    wanted = table.filter(pc.is_in(table["image_id"], pa.array(image_ids, pa.string())))
    return {row["image_id"]: row for row in wanted.to_pylist()}


def _at_size(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Predictions of the stretched protocol go back to the photograph's size to be looked at."""
    if labels.shape == size_hw:
        return labels
    return np.asarray(Image.fromarray(labels).resize((size_hw[1], size_hw[0]), Image.Resampling.NEAREST))
