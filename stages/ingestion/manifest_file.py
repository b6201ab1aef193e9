"""The manifest of a data root: path, size and mark of each file, in a table that is checked instead of the root.

A mark changes with the content: the SHA-256 of a file, or why it is not read; for an object of a storage its ETag.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.data.remote import Listing, RemotePath, data_root, list_objects
from stages.data.root_files import visible_files
from stages.data.tables import stream_rows, write_table
from stages.ingestion.config import DataParams
from stages.ingestion.root_states import folder_of

MANIFEST = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mark", pa.string(), nullable=False),
    ]
)

ROWS = 65_536
"""Rows per group of the table."""


def write_manifest(path: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Write (size in bytes, mark) by path relative to the root, sorted. Raises UserError for a name not in UTF-8."""
    rows = ({"path": name, "size": size, "mark": mark} for name, (size, mark) in sorted(files.items()))
    try:
        write_table(path, MANIFEST, rows, ROWS)
    except UnicodeEncodeError as error:
        raise UserError(
            f"{error.object}: file name is not valid UTF-8, and a manifest holds no other: rename it"
        ) from None


def is_manifest(path: Path) -> bool:
    """Whether the file could be replaced by a manifest without losing anything else."""
    try:
        return pq.read_schema(path).equals(MANIFEST)
    except (OSError, ValueError, pa.ArrowException):
        return False


def read_sizes(path: Path) -> dict[str, int]:
    """Sizes in bytes by path relative to the root. Raises UserError where there is no manifest."""
    return {row["path"]: row["size"] for row in stream_rows(path, MANIFEST, "manifest", ["path", "size"])}


def opened_root(data: DataParams) -> Path | RemotePath:
    """`data.root` as a path. On object storage, its objects are listed first: from `data.manifest`, or by the storage.

    Raises UserError where a manifest does not list exactly the files of a local folder. Objects are not checked.
    """
    root, manifest = data_root(data.root), data.manifest and Path(data.manifest)
    folder = folder_of(root)
    if isinstance(root, RemotePath):
        found = read_sizes(manifest) if manifest else {path: size for path, (size, _) in list_objects(folder).items()}
        RemotePath.listed = Listing(folder, found)
    elif manifest:
        linked: list[Path] = []
        there = {os.path.relpath(file, folder) for file in (*visible_files(folder, linked.append), *linked)}
        own, known = {os.path.relpath(manifest, folder)}, read_sizes(manifest).keys()
        wrong = {"listed and not there": known - there - own, "not listed": there - known - own}
        if said := [f"{len(files):,} {how}, such as {min(files)}" for how, files in wrong.items() if files]:
            again = f"refresh it: python -m stages.manifest {root} --out {manifest}"
            raise UserError(f"{manifest}: {'; '.join(said)}; {again}")
    return root
