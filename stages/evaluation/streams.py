"""Rows of a Parquet file one after another, for tables that hold a picture a row."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError

ROWS_AT_ONCE = 64
"""Rows held in memory."""


def stream_rows(path: Path, schema: pa.Schema, made_by: str, columns: list[str] | None = None) -> Iterator[dict]:
    """As `read_table` reads them, all columns or some, in memory that does not grow with their number.

    Raises UserError like `read_table`, when the first row is asked for.
    """
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                columns = f"columns are {file.schema_arrow.names}, expected {schema.names}"
                raise UserError(f"{path}: {columns}; run the {made_by} stage")
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not readable ({error}); run the {made_by} stage") from None
