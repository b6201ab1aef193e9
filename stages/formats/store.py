"""What already lies in an output folder: what is done is not done again, and nothing is overwritten unasked."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from stages.common.errors import UserError
from stages.common.files import new_file, sha256_file
from stages.formats.defects import Record
from stages.formats.photos import SUFFIX_IN, Source, file_in

FORCE = "another --out keeps it, --force overwrites it"


def standing(
    sources: Iterable[Source], out: Path, folders: Iterable[str], model: str, force: bool
) -> dict[str, Record]:
    """Records in `out`, by name, of the images that `model` has already seen as they are now.

    `folders`: those of `out` that this command fills. Raises UserError, before any work, where a record tells of
    another model or image, or where an output lies without a record; with `force` those are made anew.
    """
    found = {}
    for source in sources:
        path = file_in(out / "records", source.name)
        if path.is_file():
            record = _read(path)
            if record.model == model and record.sha256 == _sha256(source.path):
                # the image may bear another suffix by now
                found[source.name] = record.model_copy(update={"file": source.file})
            elif not force:
                other = "model" if record.model != model else "image"
                raise UserError(f"{path}: made from another {other}; {FORCE}")
        elif not force:
            for folder in folders:
                if (output := file_in(out / folder, source.name)).exists():
                    raise UserError(f"{output}: is there, but not known to be ours; {FORCE}")
    return found


def forget(name: str, out: Path) -> None:
    """Remove all that was made of an image that was seen anew."""
    for folder in SUFFIX_IN:
        file_in(out / folder, name).unlink(missing_ok=True)


def place(path: Path, data: bytes, force: bool) -> None:
    """Write `data`; where the file holds something else, raise UserError, or overwrite it with `force`."""
    if path.exists():
        if path.read_bytes() == data:
            return
        if not force:
            raise UserError(f"{path}: is there and would change; {FORCE}")
    with new_file(path) as part:
        part.write_bytes(data)


def _read(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable record ({reason}); remove it") from None


def _sha256(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None
