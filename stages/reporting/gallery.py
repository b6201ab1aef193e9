"""From tables and predictions to the pictures of a split, and to the fate of its defects."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.dataset.photos import read_photo
from stages.dataset.tables import BOXES, TRUTH, Dataset, decode_label_map, read_table
from stages.reporting.agreement import agreement
from stages.reporting.defects import TEACHER, Defects, gather
from stages.reporting.overlays import Case, at_size
from stages.scoring.predictions import read_predictions
from stages.teacher.shards import read_masks


class LabelMaps(Mapping[str, np.ndarray]):
    """Image id -> label map, held as PNG bytes and decoded on access."""

    def __init__(self, image_ids: pa.ChunkedArray, pngs: pa.ChunkedArray):
        self._pngs = dict(zip(image_ids.to_pylist(), pngs.to_pylist(), strict=True))

    def __getitem__(self, image_id: str) -> np.ndarray:
        return decode_label_map(self._pngs[image_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._pngs)

    def __len__(self) -> int:
        return len(self._pngs)


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


def defects_of(
    split: str, runs: Sequence[str], seeds: Sequence[int], predictions: Path, masks: Path, truth: Path
) -> Defects | None:
    """How the teacher and every training of `runs` did on each true defect of a split; None where nobody drew truth."""
    human = read_table(truth / f"{split}.parquet", TRUTH)
    if not len(human):
        return None
    pseudo = read_masks(masks / split)
    predicted = {TEACHER: [LabelMaps(pseudo["image_id"], pc.struct_field(pseudo["label_map"], "bytes"))]}
    for run in runs:
        tables = [read_predictions(predictions / run / str(seed) / f"{split}.parquet") for seed in seeds]
        predicted[run] = [LabelMaps(table["image_id"], table["mask_png"]) for table in tables]
    return gather(LabelMaps(human["image_id"], human["mask_png"]), predicted)


def _by_image(table: pa.Table, image_ids: list[str]) -> dict[str, dict]:
    wanted = table.filter(pc.is_in(table["image_id"], pa.array(image_ids, pa.string())))
    return {row["image_id"]: row for row in wanted.to_pylist()}
