"""Which images each split has, and where their labels and masks belong, by Ultralytics' naming rules."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.root_files import SUFFIXES, inside, visible_files
from stages.data.tables import SPLITS
from stages.ingestion.data_yaml import class_names, existing_path, read_data_yaml, relative_path
from stages.ingestion.rejects import Reject

COMPANIONS = (".txt", ".cache", ".json", ".xml", ".csv", ".yaml")
"""Suffixes of files that labelling tools write beside images; they are skipped without a finding."""


@dataclass(frozen=True)
class ImageFile:
    """An image that data.yaml names. `path` is relative to the root; `problem`: why it cannot be used, or None."""

    split: str
    image_id: str
    path: str
    problem: str | None = None


@dataclass(frozen=True)
class Layout:
    """`splits`: images of each split, sorted by id; None where data.yaml names no such split.

    `ignored`: files in the image folders that are not images.
    """

    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[ImageFile] | None]
    ignored: list[Reject]


def read_layout(root: Path, train_alone: bool = False) -> Layout:
    """Read `root`/data.yaml and list its images; `train_alone`: `val` may be absent.

    Raises UserError naming key, value and what is allowed.
    """
    config = read_data_yaml(root)
    base = existing_path(root, ".", config.get("path") or ".", "path")
    if "val" not in config and "validation" in config:
        config["val"] = config["validation"]
    ignored: dict[str, Reject] = {}
    splits: dict[str, list[ImageFile] | None] = {}
    for split in SPLITS:
        entries = config.get(split)
        if entries is None and (split == "train" or (split == "val" and not train_alone)):
            hint = "; or let ingest.split.group make one out of train" if split == "val" else ""
            allowed = f"a folder, a list of folders or a .txt list of images{hint}"
            raise UserError(f"{root / 'data.yaml'}: no `{split}`: {allowed}")
        splits[split] = None if entries is None else _images_of(root, base, split, entries, ignored)
    return Layout(root, class_names(config, str(root / "data.yaml")), splits, list(ignored.values()))


def label_path(image: str) -> str:
    """Path of an image's label file: the last folder `images` becomes `labels`, the suffix .txt (Ultralytics)."""
    return _counterpart(image, "labels", ".txt") or PurePosixPath(image).with_suffix(".txt").as_posix()


def mask_path(image: str) -> str | None:
    """The same for its mask: `masks` and .png. None without a folder `images`: the path would be the image's own."""
    return _counterpart(image, "masks", ".png")


def image_id(split: str, image: str) -> str:
    """`<split>/<path below the last folder `images`, without a leading <split> and without suffix>`."""
    parts = PurePosixPath(image).with_suffix("").parts
    above = _images_folder(parts)
    parts = parts if above is None else parts[above + 1 :]
    return "/".join((split, *(parts[1:] if len(parts) > 1 and parts[0] == split else parts)))


def orphans(layout: Layout) -> list[Reject]:
    """Labels and masks without an image, and those with a suffix that is not read (`.TXT`, a mask saved as JPEG).

    Searched are the folders where labels and masks of the layout's images belong, and those below.
    """
    folders = {PurePosixPath(image.path).parent for images in layout.splits.values() for image in images or []}
    found = []
    # a list may name images that do not exist, or that are outside of the root
    folders = {folder for folder in folders if _is_folder_inside(layout.root, str(folder))}
    for folder in sorted(folders - {folder for folder in folders if folders.intersection(folder.parents)}):
        images = (path for path, _ in _files_below(layout.root, str(folder), {}) if _is_image(path))
        stems = {PurePosixPath(path).relative_to(folder).with_suffix("") for path in images}
        for kind, suffix, meant in (("labels", ".txt", (".txt",)), ("masks", ".png", SUFFIXES)):
            place = _counterpart(f"{folder}/x", kind, "")
            beside = None if place is None else PurePosixPath(place).parent
            if beside is None or not _is_folder_inside(layout.root, str(beside)):
                continue
            for path in sorted(path for path, _ in _files_below(layout.root, str(beside), {})):
                stem = PurePosixPath(path).relative_to(beside).with_suffix("")
                # labelling tools write classes.txt beside the labels
                if path.endswith(suffix) and stem not in stems and stem.name != "classes":
                    reason = f"{kind.removesuffix('s')} file without an image"
                elif not path.endswith(suffix) and path.lower().endswith(meant):
                    reason = f"{kind} are read from files that end in {suffix}"
                else:
                    continue
                found.append(Reject(path, None, f"orphan_{kind}", reason, "file ignored"))
    return found


def with_problems(images: Iterable[ImageFile]) -> list[ImageFile]:
    """`images` of one split, sorted by id; those that share an id, and so a label file, get that as their problem."""
    ordered = sorted(images, key=lambda image: (image.image_id, image.path))
    ids = Counter(image.image_id for image in ordered)
    return [
        image
        if ids[image.image_id] == 1
        else replace(image, problem=f"{ids[image.image_id]} images share one name stem")
        for image in ordered
    ]


def _images_of(root: Path, base: str, split: str, entries: object, ignored: dict[str, Reject]) -> list[ImageFile]:
    """Images of one split, sorted by id; other files go into `ignored`."""
    found: dict[str, ImageFile] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        target = existing_path(root, base, entry, split)
        if (root / target).is_dir():
            files = _files_below(root, target, ignored)
        elif target.endswith(".txt") and (root / target).is_file():
            files = _listed(root, base, target)
        else:
            raise UserError(
                f"{root / 'data.yaml'}: {split} = {SHORT.repr(entry)}: expected a folder or a .txt list of images"
            )
        for path, problem in files:
            if _is_image(path):
                found[path] = ImageFile(split, image_id(split, path), path, problem)
            elif not path.lower().endswith(COMPANIONS):
                reason = f"not an image suffix, read are {' '.join(SUFFIXES)}"
                ignored[path] = Reject(path, None, "not_an_image", reason, "file ignored")
    if not found:
        raise UserError(
            f"{root / 'data.yaml'}: {split} = {SHORT.repr(entries)}: no images found ({' '.join(SUFFIXES)})"
        )
    return with_problems(found.values())


def _files_below(root: Path, folder: str, ignored: dict[str, Reject]) -> Iterator[tuple[str, str | None]]:
    """Relative path and problem of each visible file below `folder`; links to folders go into `ignored`."""

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
            path = relative_path(root, str(Path(target).parent) if entry.startswith("./") else base, entry)
            yield (_printable(entry)[0], "leads out of the data root") if path is None else _printable(path)


def _printable(path: str) -> tuple[str, str | None]:
    """`path` as valid UTF-8, which tables need, and a problem if that changed it."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text, None if text == path else "file name is not valid UTF-8"


def _is_folder_inside(root: Path, path: str) -> bool:
    try:
        return inside(root, path).is_dir()
    except UserError:
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _counterpart(image: str, folder: str, suffix: str) -> str | None:
    """`image` with its last folder `images` replaced by `folder`, and `suffix`; None without such a folder."""
    parts = PurePosixPath(image).with_suffix(suffix).parts
    index = _images_folder(parts)
    return None if index is None else "/".join((*parts[:index], folder, *parts[index + 1 :]))


def _images_folder(parts: tuple[str, ...]) -> int | None:
    """Index of the last folder `images` among the parts of a path."""
    return max((index for index, part in enumerate(parts[:-1]) if part == "images"), default=None)
