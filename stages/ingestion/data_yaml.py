"""Ultralytics' data.yaml: how it is found and read, its class names, and its entries as paths below the data root.

The data root is the folder that holds data.yaml. Nothing outside of it is read.
"""

import json
import os
import posixpath
import re
from pathlib import Path

from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.remote import RemotePath
from stages.data.root_files import UNWRITABLE, Unreadable, inside, read_file
from stages.ingestion.counterparts import SPLIT_FOLDERS
from stages.ingestion.file_names import HIDDEN, is_hidden

MAX_CLASSES = 254
"""Label maps hold class id + 1 in a byte, and 255 means ignored."""

MAX_YAML_BYTES = 1 << 18
MAX_CLASSES_BYTES = 1 << 16
NULL = ("", "~", "null", "Null", "NULL")
OUTSIDE = "leads out of the data root (of another machine? make it relative to data.yaml's folder)"


class Missing(UserError):
    """A folder or a list that data.yaml names, but that does not exist or has no image."""


def find_data_yaml(root: Path) -> Path:
    """The YAML file of `data.root`: the file itself, or a folder's data.yaml, dataset.yaml or only YAML file.

    Raises UserError; where a folder has images and no YAML file, the error says what to write.
    """
    if root.suffix in (".yaml", ".yml") and root.is_file():
        return root
    visible = sorted(path for path in root.iterdir() if not path.name.startswith(".")) if root.is_dir() else []
    found = [path for path in visible if path.suffix in (".yaml", ".yml") and path.is_file()]
    for name in ("data.yaml", "dataset.yaml"):
        if root / name in found:
            return root / name
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{root}: holds {len(found)} YAML files ({names}): set data.root to the one to use")
    if not found:
        must = "not found; data.root must be the folder that holds Ultralytics' data.yaml"
        raise UserError(f"{root / 'data.yaml'}: {must}{_to_write(root)}")
    return found[0]


def read_data_yaml(path: Path) -> dict:
    """The YAML file as a mapping of texts, lists and mappings: `true` stays a text. Raises UserError."""
    try:
        data = read_file(path.parent, path.name, MAX_YAML_BYTES)
    except Unreadable as error:
        raise UserError(f"{path.parent}: {error}") from None
    return parse_data_yaml(data, str(path))


def parse_data_yaml(data: bytes | None, where: str) -> dict:
    """`read_data_yaml` for the bytes of a file. Raises UserError that starts with `where`."""
    try:
        # pure: the parser in C crashes on deep nesting; the base loader gives texts as written, and follows no merge
        # keys, which can hold gigabytes in a few lines
        config = YAML(typ="base", pure=True).load(data.decode("utf-8-sig"))
    except MemoryError:
        raise
    except Exception as error:
        # besides YAMLError the parser raises RecursionError on deep nesting, and more
        raise UserError(f"{where}: cannot be read as YAML: {' '.join(str(error).split())[:500]}") from None
    if not isinstance(config, dict):
        raise UserError(f"{where}: expected a mapping with `names`, `train` and `val`")
    return {key: value for key, value in config.items() if value not in NULL}


def class_names(config: dict, where: str) -> tuple[str, ...]:
    """Class names: `names` of data.yaml, a list or a mapping from 0, 1, 2, …; class_0, class_1, … if it has only `nc`.

    Raises UserError that starts with `where`.
    """
    names, count = config.get("names"), config.get("nc")
    number = int(count) if isinstance(count, str) and re.fullmatch("[0-9]{1,9}", count) else count
    if names is None and type(number) is int and 0 < number <= MAX_CLASSES:
        return tuple(f"class_{index}" for index in range(number))
    if isinstance(names, dict):
        keyed = {int(key) if re.fullmatch("[0-9]{1,9}", str(key)) else key: name for key, name in names.items()}
        if len(keyed) == len(names) and set(keyed) == set(range(len(names))):
            names = [keyed[index] for index in range(len(keyed))]
    usable = isinstance(names, list) and names
    if not usable or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(
            f"{where}: names = {SHORT.repr(names)}: expected a list of class names, or a mapping from 0, 1, 2, …"
        )
    found = tuple(name.strip() for name in names)
    if wrong := next((name for name in found if UNWRITABLE.search(name)), None):
        raise UserError(f"{where}: names: {SHORT.repr(wrong)} holds a control character or half a surrogate pair")
    if len(set(found)) < len(found):
        raise UserError(f"{where}: names = {SHORT.repr(list(found))}: two classes have one name")
    if len(found) > MAX_CLASSES:
        raise UserError(f"{where}: {len(found)} classes; at most {MAX_CLASSES} are possible")
    if count is not None and number != len(found):
        raise UserError(f"{where}: nc = {SHORT.repr(number)}, but names has {len(found)} classes")
    return found


def keypoint_columns(config: dict, where: str) -> int | None:
    """Columns that pose labels have beyond a box: the product of `kpt_shape`; None without it. Raises UserError."""
    shape = config.get("kpt_shape")
    if shape is None:
        return None
    whole = isinstance(shape, list) and all(re.fullmatch("[1-9][0-9]{0,3}", str(number)) for number in shape)
    if not whole or len(shape) != 2:
        raise UserError(f"{where}: kpt_shape = {SHORT.repr(shape)}: expected two whole numbers, such as [17, 3]")
    return int(shape[0]) * int(shape[1])


def base_folder(where: Path, config: dict) -> str:
    """`path` of data.yaml, relative to its folder; `where`: the file. Raises UserError.

    It may be relative to Ultralytics' own folder of data sets, or a path of another machine: where it does not exist
    and the splits lie beside data.yaml, the result is `.`.
    """
    root, entry, train = where.parent, config.get("path", "."), config.get("train")
    if isinstance(entry, str):
        path = relative_path(root, ".", entry)
        elsewhere = path is None and _is_there(root / entry)
        first = train[0] if isinstance(train, list) and train else train
        beside = relative_path(root, ".", first) if isinstance(first, str) else None
        if not elsewhere and not _is_there(root / (path or entry)) and _is_there(root / (beside or entry)):
            return "."
    return existing_path(where, ".", entry, "path")


def existing_path(where: Path, base: str, entry: object, key: str) -> str:
    """The existing path, relative to the folder of data.yaml (`where`), that its `entry`, below folder `base`, means.

    Links are not resolved. A leading `../` that would leave the root is dropped, as Ultralytics does for exports that
    write it. Raises UserError naming `key`, Missing where there is no such path.
    """
    root, prefix = where.parent, f"{where}: {key} = {SHORT.repr(entry)}"
    if not isinstance(entry, str) or not entry.strip():
        raise UserError(f"{prefix}: expected a path")
    path = relative_path(root, base, entry) or relative_path(root, base, entry.replace("\\", "/").removeprefix("../"))
    if path is None:
        raise UserError(f"{prefix}: {OUTSIDE}")
    if is_hidden(path):
        raise UserError(f"{prefix}: {HIDDEN}; allowed are names that start with no dot")
    try:
        target = inside(root, path)
    except UserError as error:
        raise UserError(f"{prefix}: {error}") from None
    if not target.exists():
        raise Missing(f"{prefix}: {root / path} does not exist; paths are relative to data.yaml's folder")
    return path


def relative_path(root: Path, base: str, entry: str) -> str | None:
    """`entry` below folder `base` as a path relative to `root`; None when it is outside.

    A path is inside if it is so either with or without its links resolved. For paths from another system or machine,
    backslashes separate folders where that gives an existing path; and where a path does not exist here, the end of
    it that exists below `root` is taken, if there is only one. CVAT's lists need this: they put `data/` before paths.
    """
    top = _normal(root.absolute())
    plain = _below(top, top / base / entry)
    if plain is not None and ((isinstance(root, RemotePath) and "\\" not in entry) or _is_there(top / plain)):
        return plain  # a bucket is not asked about each line of a list
    slashed = entry.replace("\\", "/")
    other = _below(top, top / base / slashed)
    if other is not None and _is_there(top / other):
        return other
    absolute, parts = re.match("[A-Za-z]:/|/", slashed), posixpath.normpath(slashed).split("/")
    if ".." in parts or (_is_there(Path(entry)) if absolute else other is None):
        return other
    ends = ["/".join(parts[start:]) for start in range(1, len(parts) - 1)]
    found = [end for end in ends if _is_there(top / end)]
    return found[0] if len(found) == 1 else None if absolute else other


def _normal(path: Path) -> Path:
    return path.resolve() if isinstance(path, RemotePath) else Path(os.path.normpath(path))


def _below(top: Path, path: Path) -> str | None:
    """`path` relative to `top`, with or without links resolved; None when it is outside."""
    path = _normal(path)
    try:
        places = (
            (path,)
            if isinstance(path, RemotePath)
            else (path, Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path)))
        )
    except ValueError:
        places = (path,)  # a name with a zero byte or half a surrogate pair
    for above in (top, Path(os.path.realpath(top))):
        for same in places:
            if same.is_relative_to(above):
                return same.relative_to(above).as_posix()
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # a name that is too long, or holds a zero byte


def _to_write(root: Path) -> str:
    """What to write into a data.yaml that is missing; an empty text where `root` has no folder `images`."""
    if not (root / "images").is_dir():
        return ""
    lines = {
        split: f"images/{name}"
        for split, names in SPLIT_FOLDERS.items()
        for name in names
        if (root / "images" / name).is_dir()
    }
    lines = lines or {"train": "images"}
    names = '["name of class 0", "name of class 1"]'
    for place in ("classes.txt", "labels/classes.txt"):
        try:
            text = (read_file(root, place, MAX_CLASSES_BYTES) or b"").decode("utf-8-sig")
        except (Unreadable, UnicodeDecodeError):
            continue
        if listed := [line.strip() for line in text.splitlines() if line.strip()]:
            names = json.dumps(listed, ensure_ascii=False)
            break
    pairs = ", ".join([*(f"{key}: {value}" for key, value in lines.items()), f"names: {names}"])
    group = "" if "val" in lines else "; and set ingest.split.group, which makes val and test"
    return f"; for the folder images write into it: {{{pairs}}}{group}"
