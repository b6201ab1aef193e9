"""The output folder: images already predicted are not predicted again, and no file is overwritten without --force."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.common.params import read_sealed, sealed
from stages.data.root_files import Unreadable, open_file
from stages.formats.inputs import SUFFIX_IN, Source, file_in
from stages.formats.measured_defects import Record

CHOICE = "use another --out, or --force to overwrite it"


def existing_records(
    sources: Iterable[Source], out: Path, folders: Iterable[str], model: str, force: bool
) -> dict[str, Record]:
    """Records in `out`, by name, of the images that `model` has already predicted and that have not changed since.

    `folders`: the subfolders of `out` that this command writes. Raises UserError, before any work, where a record is
    of another model or image, or where an output exists without a record; with `force` those are made again.
    """
    found = {}
    for source in sources:
        path = file_in(out / "records", source.name)
        if path.is_file():
            record = read_record(path)
            if record.model == model and record.sha256 == _sha256(source.path):
                # the suffix of the image may have changed
                found[source.name] = record.model_copy(update={"file": source.file})
            elif not force:
                other = "model" if record.model != model else "image"
                raise UserError(f"{path}: made from another {other}; {CHOICE}")
        elif not force:
            for folder in folders:
                if (output := file_in(out / folder, source.name)).exists():
                    raise UserError(f"{output}: exists, but there is no record of having written it; {CHOICE}")
    return found


def remove_outputs(name: str, out: Path) -> None:
    """Remove all files of one image."""
    for folder in SUFFIX_IN:
        file_in(out / folder, name).unlink(missing_ok=True)


def write_output(path: Path, data: bytes, force: bool) -> None:
    """Write `data`, unless it is there already. Raises UserError where the file differs and `force` is not set."""
    if path.exists():
        if path.read_bytes() == data:
            return
        if not force:
            raise UserError(f"{path}: exists and would change; {CHOICE}")
    with new_file(path) as part:
        part.write_bytes(data)


def read_record(path: Path) -> Record:
    """The record in a file. Raises UserError where there is none."""
    try:
        return Record.model_validate_json(json.dumps(read_sealed(path, "remove it")))
    except ValidationError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable record ({reason}); remove it") from None


def record_json(record: Record) -> bytes:
    """A record as its file holds it."""
    return (json.dumps(sealed(record.model_dump(mode="json")), indent=1) + "\n").encode()


def _sha256(path: Path) -> str | None:
    try:
        with open_file(path.parent, path.name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, Unreadable):
        return None
