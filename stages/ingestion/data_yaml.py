"""Ultralytics' data.yaml: read, its class names, and its entries as paths below the data root.

The data root is the folder that holds data.yaml. Nothing outside of it is read.
"""

import os
from pathlib import Path

from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.root_files import inside

MAX_CLASSES = 254
"""Label maps hold class id + 1 in a byte, and 255 means ignored."""


def read_data_yaml(root: Path) -> dict:
    """`root`/data.yaml as a mapping. Raises UserError."""
    path = root / "data.yaml"
    if not path.is_file():
        raise UserError(f"{path}: not found; data.root must be the folder that holds Ultralytics' data.yaml")
    inside(root, path.name)
    try:
        config = YAML(typ="safe").load(path.read_text(encoding="utf-8-sig"))
    except MemoryError:
        raise
    except Exception as error:
        # besides YAMLError the parser raises ValueError on a date, RecursionError on deep nesting, and more
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a mapping with `names`, `train` and `val`")
    return config


def class_names(config: dict, where: str) -> tuple[str, ...]:
    """Class names: `names` of data.yaml, a list or a mapping from 0, 1, 2, …, or only `nc`.

    Raises UserError that starts with `where`.
    """
    names, count = config.get("names"), config.get("nc")
    if names is None and type(count) is int and 0 < count <= MAX_CLASSES:
        return tuple(f"class_{index}" for index in range(count))
    if isinstance(names, dict):
        keyed = {int(key) if type(key) is str and key.isdecimal() else key: name for key, name in names.items()}
        if len(keyed) == len(names) and set(keyed) == set(range(len(names))):
            names = [keyed[index] for index in range(len(keyed))]
    usable = isinstance(names, list) and names
    if not usable or not all(type(name) in (str, int, float) and str(name).strip() for name in names):
        raise UserError(
            f"{where}: names = {SHORT.repr(names)}: expected a list of class names, or a mapping from 0, 1, 2, …"
        )
    found = tuple(str(name).strip() for name in names)
    if len(set(found)) < len(found):
        raise UserError(f"{where}: names = {SHORT.repr(list(found))}: two classes have one name")
    if len(found) > MAX_CLASSES:
        raise UserError(f"{where}: {len(found)} classes; at most {MAX_CLASSES} are possible")
    if count is not None and count != len(found):
        raise UserError(f"{where}: nc = {SHORT.repr(count)}, but names has {len(found)} classes")
    return found


def existing_path(root: Path, base: str, entry: object, key: str) -> str:
    """`entry` of data.yaml below folder `base`, as an existing path relative to `root`; links are not resolved.

    A leading `../` that would leave the root is dropped, as Ultralytics does for exports that write it.
    Raises UserError naming `key`.
    """
    where = f"{root / 'data.yaml'}: {key} = {SHORT.repr(entry)}"
    if not isinstance(entry, str) or not entry.strip():
        raise UserError(f"{where}: expected a path")
    for attempt in (entry, entry.removeprefix("../")):
        path = relative_path(root, base, attempt)
        if path is not None:
            break
    else:
        raise UserError(f"{where}: leads out of the data root, {root}; paths are relative to data.yaml's folder")
    try:
        target = inside(root, path)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not target.exists():
        raise UserError(f"{where}: {root / path} does not exist; paths are relative to data.yaml's folder")
    return path


def relative_path(root: Path, base: str, entry: str) -> str | None:
    """`entry` below folder `base` as a path relative to `root`, without looking at the disk; None when outside."""
    top = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(top / base / entry))
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else None
