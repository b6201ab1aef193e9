"""Ultralytics' data.yaml: where the images of each split are, and where their labels and masks belong.

Nothing is followed out of the data root, the folder that holds data.yaml.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.images import SUFFIXES, inside, visible_files
from stages.data.tables import SPLITS
from stages.ingestion.rejects import Reject

COMPANIONS = (".txt", ".cache", ".json", ".xml", ".csv", ".yaml")
"""Files that labelling tools leave beside images: no image was lost by passing over them."""

MAX_CLASSES = 254
"""Label maps hold class id + 1 in a byte, and 255 means ignored."""


@dataclass(frozen=True)
class Photo:
    """An image that data.yaml names. `path` is relative to the root; `problem` is why it cannot be used, if so."""

    split: str
    image_id: str
    path: str
    problem: str | None = None


@dataclass(frozen=True)
class Layout:
    """`splits`: images of each split, sorted by id; None where data.yaml names no such split.

    `ignored`: files in the images' folders that are none.
    """

    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[Photo] | None]
    ignored: list[Reject]


def read_layout(root: Path, train_alone: bool = False) -> Layout:
    """Read `root`/data.yaml and list its images; `train_alone`: it need not name another split than train.

    Raises UserError naming key, value and what is allowed.
    """
    config = _read_yaml(root)
    base = _below(root, ".", config.get("path") or ".", "path")
    if "val" not in config and "validation" in config:
        config["val"] = config["validation"]
    ignored: dict[str, Reject] = {}
    splits: dict[str, list[Photo] | None] = {}
    for split in SPLITS:
        entries = config.get(split)
        if entries is None and (split == "train" or (split == "val" and not train_alone)):
            hint = "; or let ingest.split.group make one out of train" if split == "val" else ""
            allowed = f"a folder, a list of folders or a .txt list of images{hint}"
            raise UserError(f"{root / 'data.yaml'}: no `{split}`: {allowed}")
        splits[split] = None if entries is None else _photos(root, base, split, entries, ignored)
    return Layout(root, class_names(config, str(root / "data.yaml")), splits, list(ignored.values()))


def class_names(config: dict, where: str) -> tuple[str, ...]:
    """`names` of data.yaml, a list or a mapping from 0, 1, 2, … (or just `nc`), checked. `where` opens the errors."""
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


def label_path(photo: str) -> str:
    """Ultralytics' rule: the last `images` folder becomes `labels`, the suffix .txt."""
    return _sibling(photo, "labels", ".txt") or PurePosixPath(photo).with_suffix(".txt").as_posix()


def mask_path(photo: str) -> str | None:
    """The same rule for pixel truth: `masks` and .png. None without an `images` folder: an image is no mask."""
    return _sibling(photo, "masks", ".png")


def image_id(split: str, photo: str) -> str:
    """`<split>/<path below the last images folder, without <split> and suffix>`: depends on nothing but the path."""
    parts = PurePosixPath(photo).with_suffix("").parts
    if "images" in parts[:-1]:
        parts = parts[len(parts) - 1 - parts[:-1][::-1].index("images") :]
    return "/".join((split, *(parts[1:] if len(parts) > 1 and parts[0] == split else parts)))


def orphans(layout: Layout) -> list[Reject]:
    """Labels and masks that no image has, in and below the folders where those of the images belong: theirs
    is not there, or another suffix is read (`.TXT`, or a mask saved as JPEG)."""
    folders = {PurePosixPath(photo.path).parent for photos in layout.splits.values() for photo in photos or []}
    found = []
    # a list may name images that are not there, or not inside
    folders = {folder for folder in folders if _is_folder_inside(layout.root, str(folder))}
    for folder in sorted(folders - {folder for folder in folders if folders.intersection(folder.parents)}):
        photos = (path for path, _ in _files_below(layout.root, str(folder), {}) if _is_photo(path))
        stems = {PurePosixPath(path).relative_to(folder).with_suffix("") for path in photos}
        for kind, suffix, meant in (("labels", ".txt", (".txt",)), ("masks", ".png", SUFFIXES)):
            place = _sibling(f"{folder}/x", kind, "")
            beside = None if place is None else PurePosixPath(place).parent
            if beside is None or not _is_folder_inside(layout.root, str(beside)):
                continue
            for path in sorted(path for path, _ in _files_below(layout.root, str(beside), {})):
                stem = PurePosixPath(path).relative_to(beside).with_suffix("")
                # classes.txt is written by labelling tools beside the labels
                if path.endswith(suffix) and stem not in stems and stem.name != "classes":
                    reason = f"{kind.removesuffix('s')} file without an image"
                    found.append(Reject(path, None, f"orphan_{kind}", reason, "file ignored"))
                elif not path.endswith(suffix) and path.lower().endswith(meant):
                    reason = f"{kind} are read from files that end in {suffix}"
                    found.append(Reject(path, None, f"orphan_{kind}", reason, "file ignored"))
    return found


def _read_yaml(root: Path) -> dict:
    path = root / "data.yaml"
    if not path.is_file():
        raise UserError(f"{path}: not found; data.root must be the folder that holds Ultralytics' data.yaml")
    inside(root, path.name)
    try:
        config = YAML(typ="safe").load(path.read_text(encoding="utf-8-sig"))
    except Exception as error:
        # beside its own errors the parser raises ValueError on a date, RecursionError on depth, and more
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a mapping with `names`, `train` and `val`")
    return config


def _below(root: Path, base: str, entry: object, key: str) -> str:
    """An entry of data.yaml as an existing path relative to `root`, links not resolved, though checked.

    A leading `../` that would leave the root is dropped, as Ultralytics does for the exports that have it.
    """
    where = f"{root / 'data.yaml'}: {key} = {SHORT.repr(entry)}"
    if not isinstance(entry, str) or not entry.strip():
        raise UserError(f"{where}: expected a path")
    for attempt in (entry, entry.removeprefix("../")):
        path = _relative(root, base, attempt)
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


def _relative(root: Path, base: str, entry: str) -> str | None:
    """`entry` below `base` as a path relative to `root`, by its letters alone; None when it leads out."""
    top = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(top / base / entry))
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else None


def _photos(root: Path, base: str, split: str, entries: object, ignored: dict[str, Reject]) -> list[Photo]:
    """Images of one split, sorted by id."""
    found: dict[str, Photo] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        target = _below(root, base, entry, split)
        if (root / target).is_dir():
            files = _files_below(root, target, ignored)
        elif target.endswith(".txt") and (root / target).is_file():
            files = _listed(root, base, target)
        else:
            raise UserError(
                f"{root / 'data.yaml'}: {split} = {SHORT.repr(entry)}: expected a folder or a .txt list of images"
            )
        for path, problem in files:
            if _is_photo(path):
                found[path] = Photo(split, image_id(split, path), path, problem)
            elif not path.lower().endswith(COMPANIONS):
                reason = f"not an image suffix, read are {' '.join(SUFFIXES)}"
                ignored[path] = Reject(path, None, "not_an_image", reason, "file ignored")
    if not found:
        raise UserError(
            f"{root / 'data.yaml'}: {split} = {SHORT.repr(entries)}: no images found ({' '.join(SUFFIXES)})"
        )
    return with_problems(found.values())


def with_problems(photos: Iterable[Photo]) -> list[Photo]:
    """`photos` of one split, sorted by id; those that share an id, and so a label file, say so as their problem."""
    photos = list(photos)
    ids = Counter(photo.image_id for photo in photos)
    ordered = sorted(photos, key=lambda photo: (photo.image_id, photo.path))
    return [
        photo
        if ids[photo.image_id] == 1
        else replace(photo, problem=f"{ids[photo.image_id]} images share one name stem")
        for photo in ordered
    ]


def _files_below(root: Path, folder: str, ignored: dict[str, Reject]) -> Iterator[tuple[str, str | None]]:
    """Relative path, and problem, of each visible file below `folder`; links to folders go into `ignored`."""

    def ignore(link: Path) -> None:
        path, _ = _printable(os.path.relpath(link, root))
        ignored[path] = Reject(path, None, "linked_folder", "link to a folder, not followed", "file ignored")

    for file in visible_files(root / folder, ignore):
        yield _printable(os.path.relpath(file, root))


def _listed(root: Path, base: str, target: str) -> Iterator[tuple[str, str | None]]:
    """The same for each line of a .txt list: `./x` is relative to the list's folder, `x` to data.yaml's `path`."""
    for line in (root / target).read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines():
        entry = os.fsdecode(line.strip())
        if entry:
            path = _relative(root, str(Path(target).parent) if entry.startswith("./") else base, entry)
            yield (_printable(entry)[0], "leads out of the data root") if path is None else _printable(path)


def _printable(path: str) -> tuple[str, str | None]:
    """A path as text that any table can hold, and what is wrong with it if that changed it."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text, None if text == path else "file name is not valid UTF-8"


def _is_folder_inside(root: Path, path: str) -> bool:
    try:
        return inside(root, path).is_dir()
    except UserError:
        return False


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _sibling(photo: str, folder: str, suffix: str) -> str | None:
    parts = list(PurePosixPath(photo).with_suffix(suffix).parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            return "/".join((*parts[:index], folder, *parts[index + 1 :]))
    return None
