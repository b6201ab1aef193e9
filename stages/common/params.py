"""Sections of params.yaml, checked before any work, and JSON files between stages, read with their checksum.

An unknown key, a wrong type, an invalid value or a damaged file is an error of one line.
"""

import json
from pathlib import Path
from reprlib import Repr
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.files import sha256_file, write_json
from stages.common.workdir import fingerprint


class Section(BaseModel):
    """Base of every parameter model: frozen, strict types, no unknown key, no NaN or infinity, integers of 64 bits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _of_64_bits(self) -> Self:
        for key, value in vars(self).items():
            if type(value) is int and abs(value) >= 1 << 63:
                raise ValueError(f"{key} must be less than 2 to the power of 63")
        return self


DIGESTS = "sha256.json"
"""The file that seals a folder: see `write_digests`."""

S = TypeVar("S", bound=Section)

SHORT = Repr()
"""Formats a value for an error message, shortened: with YAML's aliases a small file can hold terabytes of text."""
SHORT.maxstring = SHORT.maxother = 200
SHORT.maxlevel = 2


def load_params(model: type[S], path: Path, whole: bool = False) -> S:
    """Read the top-level sections that are fields of `model` from the YAML file `path`, or from a sealed .json.

    `whole`: any other section is an error, instead of being ignored. Raises UserError naming key, value and what is
    allowed. ruamel.yaml is DVC's own parser; PyYAML would read `5e-4` as a string.
    """
    if path.suffix == ".json":
        return parse(model, read_sealed(path, "run the plan stage again"), where=str(path))
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except MemoryError:
        raise
    except Exception as error:
        # besides YAMLError the parser raises ValueError on impossible dates, RecursionError on brackets, and more
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())[:500]}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return parse(
        model, tree if whole else {key: tree[key] for key in model.model_fields if key in tree}, where=str(path)
    )


def parse(model: type[S], values: object, where: str, section: str | None = None) -> S:
    """Check `values` against `model`.

    Raises UserError that starts with `where` and the dotted key, which `section` precedes where it is given.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(where, section, detail) for detail in error.errors())) from None


def write_sealed(path: Path, value: dict) -> None:
    """Write `value` as JSON with a `checksum` of all its other keys, so that a flipped byte is never silent."""
    write_json(path, sealed(value))


def sealed(value: dict) -> dict:
    """`value` as it is after a round trip through JSON, with its `checksum`."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    return plain | {"checksum": fingerprint(plain)}


def read_sealed(path: Path, again: str) -> dict:
    """What `write_sealed` was given. Raises UserError, which ends with `again` (what to do), for anything else."""
    values = read_json(path, again)
    if values.pop("checksum", None) != fingerprint(values):
        raise UserError(f"{path}: damaged, or of an older version: its checksum does not fit; {again}")
    return values


def write_digests(folder: Path) -> None:
    """Seal a folder of weights or an export: `sha256.json` holds the SHA-256 of its other files."""
    write_sealed(
        folder / DIGESTS, {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != DIGESTS}
    )


def check_digests(folder: Path, again: str) -> None:
    """Raises UserError, which ends with `again`, where a file is not as it was when `write_digests` saw it.

    A folder that is not sealed, such as a user's own, passes.
    """
    if (folder / DIGESTS).exists():
        for name, digest in read_sealed(folder / DIGESTS, again).items():
            if not (folder / name).is_file() or sha256_file(folder / name) != digest:
                raise UserError(f"{folder / name}: missing or damaged: its SHA-256 is not that in {DIGESTS}; {again}")


def read_json(path: Path, again: str) -> dict:
    """A JSON file that holds a mapping. Raises UserError, which ends with `again`, for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable ({reason}); {again}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping, found {type(values).__name__}; {again}")
    return values


def _explain(where: str, section: str | None, detail: dict) -> str:
    key = ".".join(str(part) for part in ([section] if section else []) + list(detail["loc"]))
    if detail["type"] == "missing":
        return f"{where}: {key} is missing"
    return f"{where}: {key} = {SHORT.repr(detail['input'])}: {detail['msg'].removeprefix('Value error, ')}"
