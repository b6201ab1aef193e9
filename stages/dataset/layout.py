"""Ultralytics' data.yaml: where the photographs of each split are, and where their labels and masks belong."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML, YAMLError

from stages.dataset.photos import inside
from stages.dataset.tables import SPLITS
from stages.shell.errors import UserError

SUFFIXES = (".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Layout:
    """`splits`: photographs of each split as sorted paths relative to `root`, with `/`; None = no such split.

    `base` is where data.yaml's `path` points to, below `root`.
    """

    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[str] | None]


def read_layout(root: Path) -> Layout:
    """Read `root`/data.yaml and list its photographs. Raises UserError naming key, value and what is allowed."""
    path = root / "data.yaml"
    if not path.is_file():
        raise UserError(f"{path}: not found; data.root must be a folder with Ultralytics' data.yaml")
    try:
        config = YAML(typ="safe").load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, YAMLError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a mapping with `names`, `train` and `val`")
    base = _folder(path, root, root, "path", str(config.get("path") or "."))
    splits: dict[str, list[str] | None] = {}
    for split in SPLITS:
        where = config.get(split)
        if where is None and split != "test":
            raise UserError(f"{path}: no `{split}`: a folder, a list of folders or a .txt list of photographs")
        splits[split] = None if where is None else _photos(path, root, base, split, where)
    return Layout(root, _names(path, config), splits)


def label_path(photo: str) -> str:
    """Ultralytics' rule: the last `images` folder becomes `labels`, the suffix .txt."""
    return _sibling(photo, "labels", ".txt")


def mask_path(photo: str) -> str:
    """The same rule for pixel truth: the last `images` folder becomes `masks`, the suffix .png."""
    return _sibling(photo, "masks", ".png")


def image_id(split: str, photo: str) -> str:
    """`<split>/<path below the photograph's images/<split> folder, without its suffix>`."""
    parts = PurePosixPath(photo).with_suffix("").parts
    if "images" in parts[:-1]:
        parts = parts[len(parts) - parts[::-1].index("images") :]
    return "/".join((split, *(parts[1:] if len(parts) > 1 and parts[0] == split else parts)))


def _sibling(photo: str, folder: str, suffix: str) -> str:
    parts = list(PurePosixPath(photo).with_suffix(suffix).parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = folder
            break
    return "/".join(parts)


def _names(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    readable = isinstance(names, dict) and names and all(isinstance(name, str | int) for name in names.values())
    if not readable or sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise UserError(
            f"{path}: names = {names!r}: expected a list of class names, or a mapping from 0, 1, 2, … to them"
        )
    found = tuple(str({str(key): value for key, value in names.items()}[str(index)]) for index in range(len(names)))
    if len(set(found)) < len(found):
        raise UserError(f"{path}: names = {list(found)}: two classes have one name")
    if len(found) > 254:
        raise UserError(f"{path}: {len(found)} classes; label maps hold at most 254")
    if config.get("nc", len(found)) != len(found):
        raise UserError(f"{path}: nc = {config['nc']!r}, but names has {len(found)} classes")
    return found


def _photos(path: Path, root: Path, base: Path, split: str, where: object) -> list[str]:
    entries = where if isinstance(where, list) else [where]
    if not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{path}: {split} = {where!r}: expected a folder, a list of folders or a .txt list")
    found: set[str] = set()
    for entry in entries:
        target = _folder(path, root, base, split, entry)
        if target.is_file() and target.suffix != ".txt":
            raise UserError(f"{path}: {split} = {entry!r}: is neither a folder nor a .txt list of photographs")
        files = _listed(target, root) if target.is_file() else sorted(target.rglob("*"))
        found |= {_relative(file, root) for file in files if file.suffix.lower() in SUFFIXES}
    return sorted(found)


def _folder(path: Path, root: Path, base: Path, key: str, entry: str) -> Path:
    """`entry` below `base`; it must exist and lie inside `root`."""
    target = base / entry
    if not target.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path}: {key} = {entry!r}: leads out of the data root, {root}")
    if not target.exists():
        raise UserError(f"{path}: {key} = {entry!r}: {target} does not exist")
    return target


def _listed(target: Path, root: Path) -> list[Path]:
    """The photographs of a .txt list, each relative to the list's own folder, as Ultralytics writes them."""
    try:
        lines = [line.strip() for line in target.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{target}: not a text file: {error.reason} at byte {error.start}") from None
    for line in filter(None, lines):
        inside(root, str((target.parent / line).absolute()))
    return [target.parent / line for line in lines if line]


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file.absolute(), root.absolute())).as_posix()
