"""Pseudo-masks on disk: Parquet shards of one row an image, and beside them one row a box and candidate.

    data/masks/<split>/masks-00000.parquet       label maps, sorted by image id
    data/masks/<split>/candidates-00000.parquet  the candidates of the same images, by image id, label line, index

Rows are sorted and nothing depends on clock or host, so the same images, boxes and weights give the same bytes.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.data.tables import read_table

_SHOW_AS_IMAGE = {b"huggingface": json.dumps({"info": {"features": {"label_map": {"_type": "Image"}}}}).encode()}
"""Lets Hugging Face `datasets` show the label map as an image; the other columns keep their Arrow types."""


def _fields(**types: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, type_, nullable=False) for name, type_ in types.items()]


MASKS = pa.schema(
    [
        *_fields(
            image_id=pa.string(),
            path=pa.string(),
            sha256=pa.string(),
            exif_orientation=pa.int8(),
            height=pa.int32(),
            width=pa.int32(),
            label_status=pa.string(),
            n_boxes=pa.int32(),
        ),
        # nullable, never null: `datasets` shows a column as an image only if its field equals its own to the last flag
        pa.field("label_map", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    metadata=_SHOW_AS_IMAGE,
)
"""First seven columns as in the images table. `label_map`: index PNG at native upright size, class id + 1."""

CANDIDATES = pa.schema(
    _fields(
        box_id=pa.string(),
        image_id=pa.string(),
        class_id=pa.int32(),
        x1=pa.float64(),
        y1=pa.float64(),
        x2=pa.float64(),
        y2=pa.float64(),
        cand_idx=pa.int8(),
        chosen=pa.bool_(),
        rle=pa.binary(),
        area=pa.int64(),
        area_in_box=pa.int64(),
        box_iou=pa.float32(),
        sam_pred_iou=pa.float32(),
        stability=pa.float32(),
        mean_prob_in=pa.float32(),
    )
)
"""Native upright pixels, before clipping. `cand_idx`: 0 is the teacher's single-mask output, 1 to 3 its three others.
`rle`: COCO's compressed run-length code at native size. `area_in_box`: mask pixels on the pixels of the box. `box_iou`:
IoU of the mask's bounding box with the box. `sam_pred_iou`: the teacher's own estimate. `stability`: IoU of the mask at
a lower and a higher threshold. `mean_prob_in`: mean probability over the mask."""


def write_shard(folder: Path, index: int, masks: list[dict], candidates: list[dict]) -> None:
    """Write both files of shard `index`, the candidates first: a masks file says that its shard is complete."""
    for name, schema, rows in (("candidates", CANDIDATES, candidates), ("masks", MASKS, masks)):
        with new_file(folder / f"{name}-{index:05d}.parquet") as part:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, compression="zstd")


def shard_indices(folder: Path) -> list[int]:
    """Indices of the shards below `folder`. Raises UserError where there is none."""
    indices = sorted(int(path.stem.removeprefix("masks-")) for path in folder.glob("masks-*.parquet"))
    if not indices:
        raise UserError(f"{folder}: no pseudo-masks here (masks-00000.parquet); run the rasterize stage")
    return indices


def read_shard(folder: Path, index: int) -> tuple[pa.Table, pa.Table]:
    """Masks and candidates of one shard."""
    return (
        read_table(folder / f"masks-{index:05d}.parquet", MASKS, "rasterize"),
        read_table(folder / f"candidates-{index:05d}.parquet", CANDIDATES, "rasterize"),
    )


def read_masks(folder: Path) -> pa.Table:
    """All label maps of a split, sorted by image id. Raises UserError when missing or of another layout."""
    return pa.concat_tables(
        read_table(folder / f"masks-{index:05d}.parquet", MASKS, "rasterize") for index in shard_indices(folder)
    )


def read_candidates(folder: Path) -> pa.Table:
    """All candidates of a split, by image id, label line, candidate index. Raises UserError like `read_masks`."""
    return pa.concat_tables(
        read_table(folder / f"candidates-{index:05d}.parquet", CANDIDATES, "rasterize")
        for index in shard_indices(folder)
    )
