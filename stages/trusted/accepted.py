"""A folder of accepted masks: index PNGs under the names of their images, and where each came from.

masks/<path of the image>.png   0 = background, class id + 1, 255 = unknown
provenance.csv                  one row per mask
classes.json                    names of the classes, in the order of their ids
"""

import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from stages.common.errors import UserError
from stages.common.files import as_it_was, new_file, write_csv, write_json
from stages.data.tables import decode_label_map, encode_label_map
from stages.formats.correction import Correction, Refused

PROVENANCE = "provenance.csv"
CLASSES = "classes.json"

COLUMNS = ("path", "image_sha256", "source", "exported_at", "replaces")
"""Of PROVENANCE: the image and its bytes; the file with the correction; when that was exported, if it says so; SHA-256
of the label map, as PNG, of the pseudo-mask that it was drawn on."""

Outcome = Literal["accepted", "no correction", "accepted before"]


class AcceptedMasks:
    """The accepted masks in `folder`, which may not exist yet. `names`: of the data set's classes."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names, self.provenance = folder, list(names), read_provenance(folder, names)
        self.taken: dict[str, dict] = {}

    def take(self, found: Correction, image_sha256: str, exported: bytes | None) -> Outcome | Refused:
        """Write a mask, unless it equals `exported` (PNG of the pseudo-mask, or None) or its image has another mask."""
        if exported is not None and found.unchanged(decode_label_map(exported)):
            return "no correction"
        png = encode_label_map(found.label_map)
        target = self._mask(found.path)
        if target.exists() and target.read_bytes() != png:
            known = self.provenance.get(found.path, {}).get("source")
            whose = f", accepted from {known}" if known else ""
            return Refused(found.path, f"{target} holds another mask of it{whose}: remove it first", found.source)
        if target.exists() and found.path in self.provenance:
            return "accepted before"
        with new_file(target) as part:
            part.write_bytes(png)
        replaces = None if exported is None else hashlib.sha256(exported).hexdigest()
        values = (found.path, image_sha256, PurePosixPath(found.source).name, found.exported_at, replaces)
        self.provenance[found.path] = self.taken[found.path] = dict(zip(COLUMNS, values, strict=True))
        return "accepted"

    def save(self) -> None:
        """Write CLASSES, and add to PROVENANCE, without masks that have been removed; nothing where none was accepted.

        The folder is locked meanwhile: another process may add to it.
        """
        if not self.provenance:
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            known = read_provenance(self.folder, self.names) | self.taken
            rows = [row for _, row in sorted(known.items()) if self._mask(row["path"]).exists()]
            write_json(self.folder / CLASSES, self.names)
            write_csv(self.folder / PROVENANCE, COLUMNS, ([row[name] for name in COLUMNS] for row in rows))
        finally:
            os.close(handle)

    def _mask(self, image_path: str) -> Path:
        return self.folder / "masks" / PurePosixPath(image_path).with_suffix(".png")


def read_provenance(folder: Path, names: Sequence[str]) -> dict[str, dict]:
    """Path of an image to its row of PROVENANCE, empty cells as None; empty without such a file.

    `names`: of the data set's classes. Raises UserError where `folder` has masks of other classes, or damaged files.
    """
    file = folder / CLASSES
    try:
        theirs = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else list(names)
    except ValueError as error:
        raise UserError(f"{file}: not readable JSON ({error})") from None
    if theirs != list(names):
        raise UserError(
            f"{file}: the masks are of the classes {theirs}, the data set has {list(names)}; write these names to the "
            "file only if the values of the masks mean them"
        )
    file = folder / PROVENANCE
    if not file.is_file():
        return {}
    try:
        # utf-8-sig: spreadsheets write a byte order mark
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = [
                {key: as_it_was(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(text)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as CSV in UTF-8 ({error})") from None
    if any(set(row) != set(COLUMNS) for row in rows):
        raise UserError(f"{file}: the columns must be {', '.join(COLUMNS)}")
    return {row["path"]: row for row in rows}
