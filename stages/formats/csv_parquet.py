"""One row per defect, as CSV and Parquet."""

import io
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.files import csv_text
from stages.formats.measured_defects import Defect, Record

TYPES = {
    **dict.fromkeys(("file", "class"), pa.string()),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.int32()),
    "area_px": pa.int64(),
    **dict.fromkeys(("area_share", "confidence", "elongation", "orientation_deg"), pa.float64()),
}
LENGTHS = ("length", "mean_width", "max_width", "diameter")
NULLABLE = ("orientation_deg", *(f"{name}_px" for name in LENGTHS), *(f"{name}_mm" for name in LENGTHS))
IN_PX = dict.fromkeys((f"{name}_px" for name in LENGTHS), pa.float64())
IN_MM = dict.fromkeys(("mm_per_px", "area_mm2", *(f"{name}_mm" for name in LENGTHS)), pa.float64())
"""Columns and their types. The box is [x1, x2) x [y1, y2) in pixels of the upright image; `area_share` is the area as
a share of the whole image. The measurements are those of `formats.measurements.Size`."""


def schema(in_mm: bool) -> pa.Schema:
    """Columns of the table, with those in millimetres or without."""
    types = TYPES | IN_PX | (IN_MM if in_mm else {})
    return pa.schema([pa.field(name, type_, nullable=name in NULLABLE) for name, type_ in types.items()])


def measured(defect: Defect, mm_per_px: float | None) -> dict[str, float | None]:
    """The sizes of a defect by column, in pixels and, with `mm_per_px`, in millimetres; None where not applicable."""
    pixels = {name: getattr(defect.size, name) for name in LENGTHS}
    found = {f"{name}_px": value for name, value in pixels.items()}
    if mm_per_px is not None:
        found |= {"mm_per_px": mm_per_px, "area_mm2": float(f"{defect.area_px * mm_per_px**2:.6g}")}
        scaled = {name: value if value is None else float(f"{value * mm_per_px:.6g}") for name, value in pixels.items()}
        found |= {f"{name}_mm": value for name, value in scaled.items()}
    return found


def row_of(record: Record, defect: Defect, names: list[str], mm_per_px: float | None) -> dict[str, object]:
    """A defect of `record` by column of `schema`."""
    return {
        "file": record.file,
        "class": names[defect.class_id],
        **dict(zip(("x1", "y1", "x2", "y2"), defect.box_xyxy, strict=True)),
        "area_px": defect.area_px,
        "area_share": round(defect.area_px / (record.size_hw[0] * record.size_hw[1]), 8),
        "confidence": defect.confidence,
        "elongation": defect.size.elongation,
        "orientation_deg": defect.size.orientation_deg,
        **measured(defect, mm_per_px),
    }


def tables(records: Iterable[Record], names: list[str], scales: Mapping[str, float] | None) -> dict[str, bytes]:
    """`defects.csv` and `defects.parquet`, the same rows in both, by image and class. `scales`: see `formats.scale`."""
    columns = schema(scales is not None)
    rows = [
        row_of(record, defect, names, scales and scales[record.file]) for record in records for defect in record.defects
    ]
    text = csv_text(columns.names, ([row[name] for name in columns.names] for row in rows))
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), parquet, compression="zstd")
    return {"defects.csv": text.encode(), "defects.parquet": parquet.getvalue()}
