"""One row per defect, as CSV and Parquet."""

import csv
import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from stages.formats.measured_defects import Record

TYPES = {
    **dict.fromkeys(("file", "class"), pa.string()),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.int32()),
    "area_px": pa.int64(),
    **dict.fromkeys(("area_share", "confidence", "elongation"), pa.float64()),
}
SCHEMA = pa.schema([pa.field(name, type_, nullable=False) for name, type_ in TYPES.items()])
"""The box is [x1, x2) x [y1, y2) in pixels of the upright image; `area_share` is of the whole image."""


def tables(records: Iterable[Record], names: list[str]) -> dict[str, bytes]:
    """`defects.csv` and `defects.parquet`, the same rows in both, by image and class."""
    rows = [
        {
            "file": record.file,
            "class": names[defect.class_id],
            **dict(zip(("x1", "y1", "x2", "y2"), defect.box_xyxy, strict=True)),
            "area_px": defect.area_px,
            "area_share": round(defect.area_px / (record.size_hw[0] * record.size_hw[1]), 8),
            "confidence": defect.confidence,
            "elongation": defect.elongation,
        }
        for record in records
        for defect in record.defects
    ]
    text, parquet = io.StringIO(), io.BytesIO()
    writer = csv.DictWriter(text, SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), parquet, compression="zstd")
    return {"defects.csv": text.getvalue().encode(), "defects.parquet": parquet.getvalue()}
