"""Pseudo-masks on disk: Parquet shards with one row per image, and others with one row per box and candidate.

    data/masks/<split>/label_maps/00000.parquet  label maps, by image id
    data/masks/<split>/candidates/00000.parquet  the candidates of the same images, by image id, label line, index
    data/masks/<split>/shards.json               index, rows and SHA-256 of each shard: readers read these and no others

Each folder holds files of one schema, as readers of Parquet data sets expect. Rows are sorted and nothing depends on
clock or host, so the same images, boxes and weights give the same bytes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stages.common.errors import UserError
from stages.common.files import write_json
from stages.data.tables import BOXES, IGNORE, IMAGES, columns, read_table, stream_rows
from stages.masks import rle

_SHOW_AS_IMAGE = {b"huggingface": json.dumps({"info": {"features": {"label_map": {"_type": "Image"}}}}).encode()}
"""Lets Hugging Face `datasets` show the label map as an image; the other columns keep their Arrow types."""


MASKS = pa.schema(
    [
        *(IMAGES.field(name) for name in IMAGES.names if name != "split"),
        # label_map is never null, but nullable: `datasets` shows a column as an image only if its field is declared so
        *columns(
            {"label_map", "trusted"},
            n_boxes=(pa.int32(), "boxes of the image"),
            label_map=(
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                "8-bit PNG of the upright image's size: 0 background, class id + 1, 255 unknown where a person drew it",
            ),
            trusted=(pa.binary(), "run-length code of the pixels whose label a person drew; null where there is none"),
        ),
    ],
    metadata=_SHOW_AS_IMAGE,
)
"""One row per image."""

CANDIDATES = pa.schema(
    [
        *(BOXES.field(name) for name in ("box_id", "image_id", "class_id", "x1", "y1", "x2", "y2")),
        *columns(
            cand_idx=(
                pa.int8(),
                "0: the teacher's single-mask output, 1 to 3: its three others, 4: all of these refined by the image",
            ),
            chosen=(pa.bool_(), "whether the pseudo-mask is this one"),
            rle=(pa.binary(), "the mask before clipping, as COCO's compressed run-length code of the upright image"),
            area=(pa.int64(), "pixels of the mask"),
            area_in_box=(pa.int64(), "pixels of the mask on the pixels of the box"),
            box_iou=(pa.float32(), "IoU of the mask's bounding box with the box"),
            sam_pred_iou=(pa.float32(), "the teacher's own estimate of the mask's IoU"),
            stability=(pa.float32(), "IoU of the masks at two thresholds"),
            mean_prob_in=(pa.float32(), "mean probability over the mask's pixels"),
            separation=(pa.float32(), "of the mask's colours from those beside it: stages/teacher/evidence.py"),
            agreement=(pa.float32(), "of the candidates with each other: stages/teacher/evidence.py"),
        ),
    ]
)
"""One row per box and candidate."""

SCORES = ("sam_pred_iou", "stability", "mean_prob_in", "box_iou", "separation", "agreement")
"""Columns of CANDIDATES that judge a mask without knowing the truth; a mask that a person drew has 1 in each."""

LABEL_MAPS, CANDIDATE_ROWS = "label_maps", "candidates"
"""The folders of a split, each with one file per shard."""
INDEX = "shards.json"


class Shard(NamedTuple):
    """An entry of shards.json. `rows`: images; `sha256`: of the shard's file in each of the two folders, by folder."""

    index: int
    rows: int
    sha256: dict[str, str]


def shard_path(folder: Path, kind: str, index: int) -> Path:
    """The file of one shard in the folder `kind` of a split."""
    return folder / kind / f"{index:05d}.parquet"


def write_index(folder: Path, shards: Iterable[Shard]) -> None:
    """Write which shards a split has; to be called when all their files are there."""
    write_json(folder / INDEX, [shard._asdict() for shard in sorted(shards)])


def shard_indices(folder: Path) -> list[int]:
    """Indices of the shards of a split, ascending. Raises UserError where it is missing or not complete."""
    try:
        indices = [shard["index"] for shard in json.loads((folder / INDEX).read_text(encoding="utf-8"))]
        if indices and indices == list(range(len(indices))):
            return indices
        reason = f"lists shards {indices[:5]}, expected 0, 1, ..."
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"no pseudo-masks here ({' '.join(str(error).split())})"
    raise UserError(f"{folder / INDEX}: {reason}; run the rasterize stage")


def read_shard(folder: Path, index: int) -> tuple[pa.Table, pa.Table]:
    """Masks and candidates of one shard. Raises UserError like `read_table`."""
    return (
        read_table(shard_path(folder, LABEL_MAPS, index), MASKS, "rasterize"),
        read_table(shard_path(folder, CANDIDATE_ROWS, index), CANDIDATES, "rasterize"),
    )


def apart(labels: np.ndarray, trusted: bytes | None) -> dict[bool, np.ndarray]:
    """The (H, W) uint8 labels of an image that a person drew (True) and the others (False), each 255 elsewhere.

    `trusted`: that column of its row of MASKS; where it is None, the result has only False.
    """
    if trusted is None:
        return {False: labels}
    drawn = rle.decode(trusted, labels.shape)
    return {by_hand: np.where(drawn == by_hand, labels, IGNORE).astype(np.uint8) for by_hand in (False, True)}


def stream_masks(folder: Path, columns: list[str] | None = None) -> Iterator[dict]:
    """The rows of MASKS of a split, by image id, in memory that does not grow with their number. Raises UserError when
    missing or of another layout."""
    for index in shard_indices(folder):
        yield from stream_rows(shard_path(folder, LABEL_MAPS, index), MASKS, "rasterize", columns)
