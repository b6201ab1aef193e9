"""From tables and predictions to the pictures of a split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.compute as pc

from stages.data.images import read_image
from stages.data.tables import BOXES, Dataset, decode_label_map, read_table
from stages.evaluation.predictions import stream_predictions
from stages.reporting.agreement import agreement
from stages.reporting.overlays import Case, at_size
from stages.reporting.scenes import stream_masks, stream_truth


def cases(
    source: Dataset, split: str, image_ids: list[str], predictions: Path, tables: Path, masks: Path, truth: Path
) -> Iterator[Case]:
    """What to draw for `image_ids`, in their order; `predictions` is the folder of the training to show."""
    photos = _rows(stream_masks(masks / split), image_ids)
    predicted = _rows(stream_predictions(predictions / f"{split}.parquet"), image_ids)
    human = _rows(stream_truth(truth, split), image_ids)
    boxes = read_table(tables / split / "boxes.parquet", BOXES)
    for image_id in image_ids:
        row = photos[image_id]
        photo = read_image(source.root, row["path"], row["sha256"], row["exif_orientation"])
        teacher = decode_label_map(row["label_map"]["bytes"])
        student = at_size(decode_label_map(predicted[image_id]["mask_png"]), photo.shape[:2])
        label_map = decode_label_map(human[image_id]["mask_png"]) if image_id in human else None
        drawn = boxes.filter(pc.equal(boxes["image_id"], image_id)).to_pylist()
        yield Case(
            title=image_id,
            agreement=agreement(teacher, student, label_map, len(source.names)),
            photo=photo,
            boxes_xyxy=[(box["class_id"], (box["x1"], box["y1"], box["x2"], box["y2"])) for box in drawn],
            teacher=teacher,
            student=student,
            truth=label_map,
        )


def _rows(stream: Iterable[dict], image_ids: list[str]) -> dict[str, dict]:
    """Those of `image_ids`; the others are not kept."""
    wanted = set(image_ids)
    return {row["image_id"]: row for row in stream if row["image_id"] in wanted}
