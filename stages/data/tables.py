"""Tables of a data set, written by ingest and read by all later stages: schemas, readers, writers.

Every later stage depends on this file: keep it small and stable.
"""

import io
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.common.params import read_sealed, write_sealed
from stages.data.remote import RemotePath, data_root

SPLITS = ("train", "val", "test")

IGNORE = 255
"""Label of pixels that are neither trained on nor scored: unknown truth, and the padding around a small image."""


AS_FILE = {"compression": "zstd", "write_page_checksum": True}
"""How every table is written: with a checksum per page, so that a flipped byte is never silent."""

ROWS_AT_ONCE = 64
"""Rows that `stream_rows` holds in memory."""


def columns(nullable: Container[str] = (), /, **described: tuple[pa.DataType, str]) -> list[pa.Field]:
    """Columns from name=(type, meaning); the meaning is stored in the file as the field's `description`. Only those in
    `nullable` may hold nulls."""
    return [pa.field(name, kind, name in nullable, {"description": text}) for name, (kind, text) in described.items()]


def with_names(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """`schema` with the class names, as JSON, in the file's metadata `class_names`: class id = index."""
    return schema.with_metadata({**(schema.metadata or {}), "class_names": json.dumps(names, ensure_ascii=False)})


_IMAGE_ID = (pa.string(), "split and path of the image, without folder `images` and suffix")

IMAGES = pa.schema(
    columns(
        image_id=_IMAGE_ID,
        split=(pa.string(), "train, val or test"),
        path=(pa.string(), "of the image file, relative to the data root, with /"),
        sha256=(pa.string(), "of the image file"),
        exif_orientation=(pa.int8(), "1 to 8; all sizes and coordinates are those of the upright image"),
        height=(pa.int32(), "pixels of the upright image"),
        width=(pa.int32(), "pixels of the upright image"),
        label_status=(
            pa.string(),
            "labelled: the label file has rows, rejected ones counted; empty: it has none; missing: no file",
        ),
    )
)

BOXES = pa.schema(
    columns(
        {"mask"},
        box_id=(pa.string(), "image_id:line"),
        image_id=_IMAGE_ID,
        class_id=(pa.int32(), "index of the class among the names of data.yaml"),
        x1=(pa.float64(), "left edge in pixels of the upright image; a box covers [x1, x2) x [y1, y2)"),
        y1=(pa.float64(), "upper edge"),
        x2=(pa.float64(), "right edge"),
        y2=(pa.float64(), "lower edge"),
        source=(pa.string(), "path of the label file, relative to the data root"),
        line=(pa.int32(), "of the label file, from 1"),
        mask=(
            pa.binary(),
            "run-length code (stages/masks/rle.py) of a polygon that is trusted as the box's mask; else null",
        ),
    )
)

REJECTS = pa.schema(
    columns(
        {"line"},
        file=(pa.string(), "relative to the data root"),
        line=(pa.int32(), "from 1; null where it concerns the whole file"),
        reason=(pa.string(), "what was found"),
        action=(pa.string(), "what was done about it: dropped, changed, ignored or noted"),
    )
)

TRUTH = pa.schema(
    columns(
        image_id=_IMAGE_ID,
        height=(pa.int32(), "pixels of the upright image"),
        width=(pa.int32(), "pixels of the upright image"),
        mask_png=(pa.binary(), "human mask, an 8-bit PNG: 0 background, class id + 1, 255 ignored"),
    )
)
"""Images without a mask have no row."""


@dataclass(frozen=True)
class Dataset:
    """`root`: folder of the images, as given by `data.root`, or its URL. `names`: of the classes; class id = index.

    `white_level`: the value that becomes 255 in images of more than 8 bits; None: by their type, see data/decoding.py.
    """

    root: Path | RemotePath
    names: tuple[str, ...]
    white_level: float | None = None


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write `dataset` as JSON."""
    write_sealed(path, vars(dataset) | {"root": dataset.root.as_posix()})


def read_dataset(path: Path) -> Dataset:
    """Read what `write_dataset` wrote. Raises UserError when the file is missing or invalid."""
    values = read_sealed(path, "run the ingest stage")
    return Dataset(data_root(values["root"]), tuple(values["names"]), values["white_level"])


def write_table(path: Path, schema: pa.Schema, rows: Iterable[dict], at_once: int | None = None) -> None:
    """Write `rows` as Parquet of exactly `schema`, in the order given: as one row group, or `at_once` rows at a time,
    for rows too many for memory."""
    rows = iter(rows)
    with open_table(path, schema) as writer:
        while some := list(islice(rows, at_once)):
            append(writer, some)


@contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A table to `append` to, for rows too many for memory; the file appears at `path` when the block ends."""
    with new_file(path) as part, pq.ParquetWriter(part, schema, **AS_FILE) as writer:
        yield writer


def append(writer: pq.ParquetWriter, rows: list[dict]) -> None:
    """Add `rows` to an open table as one row group, unless empty: Hugging Face `datasets` cannot read such a group."""
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))


def read_table(path: Path, schema: pa.Schema, made_by: str = "ingest") -> pa.Table:
    """All rows of a Parquet file of exactly `schema`, as stage `made_by` writes it.

    Raises UserError for a file that is missing, is no Parquet, or has other columns.
    """
    with _opened(path, schema, made_by) as file:
        return file.read()


def stream_rows(path: Path, schema: pa.Schema, made_by: str, columns: list[str] | None = None) -> Iterator[dict]:
    """Rows of a table one after another, all columns or `columns`, for tables too large for memory.

    Raises UserError like `read_table`, when the first row is asked for.
    """
    for table in stream_tables(path, schema, made_by, ROWS_AT_ONCE, columns):
        yield from table.to_pylist()


def stream_tables(
    path: Path, schema: pa.Schema, made_by: str, rows: int, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """`stream_rows` in tables of `rows` rows each, the last one perhaps shorter; none where there is no row."""
    with _opened(path, schema, made_by) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield pa.Table.from_batches([batch])


def count_rows(path: Path, schema: pa.Schema, made_by: str = "ingest") -> int:
    """Number of rows, without reading them. Raises UserError like `read_table`."""
    with _opened(path, schema, made_by) as file:
        return file.metadata.num_rows


@contextmanager
def _opened(path: Path, schema: pa.Schema, made_by: str) -> Iterator[pq.ParquetFile]:
    try:
        # buffered ahead, `iter_batches` would hold the whole file
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(schema):
                columns = f"columns are {file.schema_arrow.names}, expected {schema.names}"
                raise UserError(f"{path}: {columns}; run the {made_by} stage")
            yield file
    except MemoryError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not readable ({reason}); run the {made_by} stage") from None


class TruthInOrder:
    """The human masks of a split, asked for in the order of its images; read as a stream."""

    def __init__(self, path: Path) -> None:
        """`path`: a table of TRUTH. Raises UserError like `read_table`."""
        self._path, self._rows = path, stream_rows(path, TRUTH, "ingest", ["image_id", "mask_png"])
        self._next = next(self._rows, None)

    def of(self, image_id: str) -> bytes | None:
        """The PNG of an image's mask; None where it has none."""
        if self._next is None or self._next["image_id"] != image_id:
            return None
        found, self._next = self._next["mask_png"], next(self._rows, None)
        return found

    def end(self, images: object, made_by: str) -> None:
        """Raises UserError where a mask is left over: `images`, which stage `made_by` writes, lacks its image, or has
        it in another place."""
        if self._next is not None:
            where = f"{self._path}: mask of {self._next['image_id']}"
            raise UserError(f"{where}, which {images} lacks or has elsewhere; run the {made_by} stage")


def by_image(rows: Iterable[dict]) -> dict[str, list[dict]]:
    """The rows of each image id, in their order."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append(row)
    return found


def encode_label_map(labels: np.ndarray) -> bytes:
    """(H, W) uint8 labels as the bytes of an 8-bit grey PNG; equal labels give equal bytes. Raises ValueError."""
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise ValueError(f"a label map is (H, W) uint8, this is {labels.shape} {labels.dtype}")
    return encoded(Image.fromarray(labels), format="PNG")


def encoded(image: Image.Image, **options: object) -> bytes:
    """The bytes of an image file; `options` are those of Pillow's `save`."""
    image.save(buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def decode_label_map(png: bytes) -> np.ndarray:
    """The (H, W) uint8 labels that `encode_label_map` was given."""
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image)
