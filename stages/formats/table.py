"""One row a defect, as CSV and Parquet."""

import io
from collections.abc import Iterable

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.formats.defects import Record

SCHEMA = pa.schema(
    [
        pa.field(name, type_, nullable=False)
        for name, type_ in (
            ("file", pa.string()),
            ("class", pa.string()),
            ("x1", pa.int32()),
            ("y1", pa.int32()),
            ("x2", pa.int32()),
            ("y2", pa.int32()),
            ("area_px", pa.int64()),
            ("area_share", pa.float64()),
            ("confidence", pa.float64()),
            ("elongation", pa.float64()),
        )
    ]
)
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
    csv = pd.DataFrame(rows, columns=SCHEMA.names).to_csv(index=False).encode()
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), parquet, compression="zstd")
    return {"defects.csv": csv, "defects.parquet": parquet.getvalue()}
