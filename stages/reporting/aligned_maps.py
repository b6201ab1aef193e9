"""Label maps of truth, SAM teacher and every student, image by image, at the resolution that was scored."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.common.errors import UserError
from stages.data.tables import TRUTH, decode_label_map, stream_rows
from stages.evaluation.predictions import stream_predictions
from stages.masks.shards import stream_masks


class AlignedMaps(NamedTuple):
    """Label maps of one image, (H, W) uint8 at the resolution that the runs were scored at; `truth` with 255
    where ignored. `students`: run -> one map per training seed."""

    truth: np.ndarray
    teacher: np.ndarray
    students: dict[str, list[np.ndarray]]


def aligned_maps(
    split: str, runs: Sequence[str], seeds: Sequence[int], predictions: Path, masks: Path, truth: Path
) -> Iterator[AlignedMaps]:
    """Images of a split that have truth, by id; one row of each file is held at a time.

    Raises UserError where a run was not evaluated on one of them, or at another resolution than the others.
    """
    files = {(run, seed): predictions / run / str(seed) / f"{split}.parquet" for run in runs for seed in seeds}
    students = {key: stream_predictions(path) for key, path in files.items()}
    teacher = stream_masks(masks / split)
    for true in stream_rows(truth / f"{split}.parquet", TRUTH, "ingest"):
        image_id = true["image_id"]
        pseudo = _advance(teacher, image_id, masks / split, "rasterize")["label_map"]["bytes"]
        maps = {
            key: decode_label_map(_advance(rows, image_id, files[key], "evaluate")["mask_png"])
            for key, rows in students.items()
        }
        size_hw = next(iter(maps.values())).shape
        for key, labels in maps.items():
            if labels.shape != size_hw:
                other = f"{labels.shape[1]} x {labels.shape[0]} pixels of {image_id}, not {size_hw[1]} x {size_hw[0]}"
                raise UserError(f"{files[key]}: was scored on {other} like {runs[0]}; evaluate all runs alike")
        yield AlignedMaps(
            truth=at_size(decode_label_map(true["mask_png"]), size_hw),
            teacher=at_size(decode_label_map(pseudo), size_hw),
            students={run: [maps[run, seed] for seed in seeds] for run in runs},
        )


def at_size(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A label map resized to `size_hw` by nearest neighbour."""
    if labels.shape == size_hw:
        return labels
    return np.asarray(Image.fromarray(labels).resize((size_hw[1], size_hw[0]), Image.Resampling.NEAREST))


def _advance(rows: Iterator[dict], image_id: str, path: Path, made_by: str) -> dict:
    """The row of `image_id`; all files are sorted by it."""
    for row in rows:
        if row["image_id"] == image_id:
            return row
    raise UserError(f"{path}: has no {image_id}, of which there is truth; run the {made_by} stage")
