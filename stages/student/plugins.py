"""Methods of supervision and networks: one file each in `stages/methods/` and `stages/networks/`, loaded by name.

A stage that loads one does not list its file in dvc.yaml: the file's SHA-256 is in the plan of each run that uses it,
so that an edit retrains these runs and no other.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from stages.common.errors import UserError
from stages.common.files import sha256_file

STAGES = Path(__file__).parents[1]

Kind = Literal["methods", "networks"]


def names(kind: Kind) -> list[str]:
    """All that can be chosen, sorted."""
    return sorted(path.stem for path in (STAGES / kind).glob("*.py") if path.stem != "__init__")


def load(kind: Kind, name: object, where: str) -> ModuleType:
    """The module called `name`. Raises UserError, starting with `where`, for anything but one of `names(kind)`."""
    allowed = names(kind)
    if name is None:
        raise UserError(f"{where} is missing: allowed are {', '.join(allowed)}")
    if name not in allowed:
        raise UserError(f"{where} = {name!r}: allowed are {', '.join(allowed)}")
    return import_module(f"stages.{kind}.{name}")


def source_sha256(module: ModuleType) -> str:
    """Hex SHA-256 of a module's file."""
    return sha256_file(Path(module.__file__))
