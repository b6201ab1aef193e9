"""Sections of params.yaml, checked before any work: an unknown key, a wrong type or an invalid value is one line."""

from pathlib import Path
from reprlib import Repr
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, YAMLError

from stages.common.errors import UserError


class Section(BaseModel):
    """Base of every parameter model: frozen, strict types, no unknown key, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)

SHORT = Repr()
"""Formats a value for an error message, shortened: with YAML's aliases a small file can hold terabytes of text."""
SHORT.maxstring = SHORT.maxother = 200
SHORT.maxlevel = 2


def load_params(model: type[S], path: Path, whole: bool = False) -> S:
    """Read the top-level sections that are fields of `model` from the YAML file `path`.

    `whole`: any other section is an error, instead of being ignored. Raises UserError naming key, value and what is
    allowed. ruamel.yaml is DVC's own parser; PyYAML would read `5e-4` as a string.
    """
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return parse(
        model, tree if whole else {key: tree[key] for key in model.model_fields if key in tree}, where=str(path)
    )


def parse(model: type[S], values: object, where: str, section: str | None = None) -> S:
    """Check `values` against `model`, those of `section` where it is given.

    Raises UserError that starts with `where` and the dotted key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(where, section, detail) for detail in error.errors())) from None


def _explain(where: str, section: str | None, detail: dict) -> str:
    key = ".".join(str(part) for part in ([section] if section else []) + list(detail["loc"]))
    if detail["type"] == "missing":
        return f"{where}: {key} is missing"
    return f"{where}: {key} = {SHORT.repr(detail['input'])}: {detail['msg'].removeprefix('Value error, ')}"
