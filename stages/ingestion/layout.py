"""Which images each split has, and which files in their folders are no images."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.root_files import SUFFIXES, UNREAD_SUFFIXES, Unreadable, inside, read_file, visible_files
from stages.data.tables import SPLITS
from stages.ingestion.counterparts import Counterparts, counterpart, image_id, key_of, label_path
from stages.ingestion.data_yaml import (
    OUTSIDE,
    Missing,
    base_folder,
    class_names,
    existing_path,
    find_data_yaml,
    keypoint_columns,
    read_data_yaml,
    relative_path,
)
from stages.ingestion.file_names import writable
from stages.ingestion.labels import count_rows
from stages.ingestion.pixel_truth import MaskFormat, mask_format
from stages.ingestion.rejects import Reject

COMPANIONS = (".txt", ".cache", ".json", ".xml", ".csv", ".yaml")
"""Suffixes of files that labelling tools write beside images; they are skipped without a finding."""

MAX_LIST_BYTES = 1 << 26
MAX_LIST_LINES = 1_000_000
"""Bounds of a .txt list of images."""

BEHIND_LINK = "behind a link to a folder, which is not followed: name that folder in data.yaml"


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

    `ignored`: findings about other files. `keypoints`: columns of pose labels beyond a box, or None.
    """

    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[ImageFile] | None]
    ignored: list[Reject]
    masks: MaskFormat
    keypoints: int | None = None


def read_layout(data_root: Path, train_alone: bool = False) -> Layout:
    """Read data.yaml in or at `data_root` and list its images; `train_alone`: `val` may be absent.

    Raises UserError naming key, value and what is allowed.
    """
    where = find_data_yaml(data_root)
    config = read_data_yaml(where)
    base = base_folder(where, config)
    if "val" not in config and "validation" in config:
        config["val"] = config["validation"]
    ignored: dict[str, Reject] = {}
    linked: dict[str, str] = {}
    splits: dict[str, list[ImageFile] | None] = {}
    for split in SPLITS:
        entries = config.get(split)
        if entries is None and (split == "train" or (split == "val" and not train_alone)):
            hint = "; or let ingest.split.group make one out of train" if split == "val" else ""
            allowed = f"a folder, a list of folders or a .txt list of images{hint}"
            raise UserError(f"{where}: no `{split}`: {allowed}")
        try:
            splits[split] = None if entries is None else _images_of(where, base, split, entries, ignored, linked)
        except Missing as error:
            if split != "test":
                raise
            splits[split] = None
            reason = f"test = {SHORT.repr(entries)}: {'no images found' if 'no images' in str(error) else 'not there'}"
            ignored[where.name] = Reject(where.name, None, "no_test", f"{reason}, so there is no test split", "noted")
    used = {image.path for images in splits.values() for image in images or []}
    for link, split in linked.items():
        ignored[link], behind = _behind(where.parent, link, used)
        lost = [ImageFile(split, image_id(split, path), path, BEHIND_LINK) for path in behind]
        splits[split] = [*(splits[split] or []), *lost]
    names, keypoints = class_names(config, str(where)), keypoint_columns(config, str(where))
    splits = with_problems(splits)
    return Layout(where.parent, names, splits, [*ignored.values()], mask_format(config, names, str(where)), keypoints)


def orphans(layout: Layout) -> list[Reject]:
    """Labels and masks without an image, and masks with a suffix that is not read.

    Searches the folders where labels and masks of the layout's images belong, and those below.
    """
    listed = [image for images in layout.splits.values() for image in images or []]
    # a list may name images that do not exist, or that are outside of the root
    named = {PurePosixPath(image.path).parent for image in listed}
    folders = {folder for folder in named if _is_folder_inside(layout.root, str(folder))}
    found, on_read = [], Counterparts(layout.root)
    for folder in sorted(folders - {folder for folder in folders if folders.intersection(folder.parents)}):
        on_disk = (path for path, _ in _files_below(layout.root, str(folder)) if is_image(path, UNREAD_SUFFIXES))
        paths = [*on_disk, *(i.path for i in listed if folder in PurePosixPath(i.path).parents)]
        stems = {_stem(path, folder) for path in paths}
        for kind, suffix, meant in (("labels", ".txt", (".txt",)), ("masks", ".png", SUFFIXES)):
            place = counterpart(f"{folder}/x", layout.masks.folder if kind == "masks" else kind, "")
            beside = None if place is None else PurePosixPath(on_read.folder(str(PurePosixPath(place).parent)))
            if beside is None or not _is_folder_inside(layout.root, str(beside)):
                continue
            for path in sorted(path for path, _ in _files_below(layout.root, str(beside))):
                stem = _stem(path, beside)
                # labelling tools write classes.txt beside the labels
                if path.lower().endswith(suffix) and stem not in stems and PurePosixPath(stem).name != "classes":
                    reason = f"{kind.removesuffix('s')} file without an image: there is no image {folder}/{stem}.*"
                elif path.lower().endswith(suffix) and on_read.actual(path) != path:
                    reason = f"{PurePosixPath(on_read.actual(path)).name} is read instead"
                elif kind == "masks" and path.lower().endswith(meant) and not path.lower().endswith(suffix):
                    reason = f"{kind} are read from files that end in {suffix}"
                else:
                    continue
                rows = _rows_of(layout.root, path) if kind == "labels" else 0
                found.append(Reject(path, None, f"orphan_{kind}", reason, "file ignored", rows))
    return found


def with_problems(splits: Mapping[str, Sequence[ImageFile] | None]) -> dict[str, list[ImageFile] | None]:
    """`splits`, sorted by id, None where empty. Images that share a label file, in one split or in two, get that as
    their problem; where only the ids in a split are equal, the ids become the whole paths."""
    paths = {image.path for images in splits.values() for image in images or ()}  # two splits may name the same image
    labels = Counter(key_of(label_path(path)) for path in paths)
    made: dict[str, list[ImageFile] | None] = {}
    for split, images in splits.items():
        ids = Counter(name for image in images or () for name in {image.image_id, _whole_id(image)})
        found = []
        for image in images or ():
            shared = labels[key_of(label_path(image.path))]
            if shared > 1:
                image = replace(image, problem=image.problem or f"{shared} images share one name stem")
            elif ids[image.image_id] > 1:
                image = replace(image, image_id=_whole_id(image))
            found.append(image)
        made[split] = sorted(found, key=lambda image: (image.image_id, image.path)) or None
    return made


def _whole_id(image: ImageFile) -> str:
    return f"{image.split}/{PurePosixPath(image.path).with_suffix('')}"


def _images_of(where: Path, base: str, split: str, entries: object, ignored: dict, linked: dict) -> list[ImageFile]:
    """Images of one split; other files go into `ignored`, links to folders into `linked`, by path."""
    root, found, unread = where.parent, {}, {}
    beside = Counterparts(root)
    for entry in entries if isinstance(entries, list) else [entries]:
        target = existing_path(where, base, entry, split)
        listed = not (root / target).is_dir()
        if not listed:
            files = _files_below(root, target, lambda link, split=split: linked.setdefault(link, split))
        elif target.endswith(".txt") and (root / target).is_file():
            files = _listed(root, base, target)
        else:
            raise UserError(f"{where}: {split} = {SHORT.repr(entry)}: expected a folder or a .txt list of images")
        for path, problem in files:
            if is_image(path):
                found[path] = ImageFile(split, image_id(split, path), path, problem)
            elif is_image(path, UNREAD_SUFFIXES) or (
                not path.lower().endswith(COMPANIONS) and (listed or beside.is_listed(beside.label(path)))
            ):
                reason = f"{PurePosixPath(path).suffix or 'a name without suffix'} is not read"
                reason = f"{reason}: convert it to one of {' '.join(SUFFIXES)}"
                unread[path] = ImageFile(split, image_id(split, path), path, reason)
            elif not path.lower().endswith(COMPANIONS):
                reason = f"not an image suffix, read are {' '.join(SUFFIXES)}"
                ignored[path] = Reject(path, None, "not_an_image", reason, "file ignored")
    ids = {image.image_id for image in found.values()}
    for path, image in unread.items():
        if image.image_id in ids:
            reason = "not read; the image of the same name beside it is"
            ignored[path] = Reject(path, None, "not_an_image", reason, "file ignored")
    images = [*found.values(), *(image for image in unread.values() if image.image_id not in ids)]
    if not images:
        raise Missing(f"{where}: {split} = {SHORT.repr(entries)}: no images found ({' '.join(SUFFIXES)})")
    return images


def _files_below(root: Path, folder: str, linked: Callable = lambda link: None) -> Iterator[tuple[str, str | None]]:
    """Relative path and problem of each visible file below `folder`; `linked` is called with links to folders."""
    for file in visible_files(root / folder, lambda link: linked(os.path.relpath(link, root))):
        yield writable(os.path.relpath(file, root))


def _behind(root: Path, link: str, used: set[str]) -> tuple[Reject, list[str]]:
    """The finding about a link to a folder, which is not followed, and the images behind it that are not `used`. Those
    of a link out of the root are unknown, so `Census.problems` refuses the data set."""
    path, _ = writable(link)
    if not _is_folder_inside(root, link):
        return Reject(path, None, "linked_outside", "link to a folder outside of the data root", "file ignored"), []
    folder = os.path.relpath(inside(root, link), root.resolve())
    names = [name for name, _ in _files_below(root, folder) if is_image(name, UNREAD_SUFFIXES) and name not in used]
    behind = sorted(writable(f"{link}/{os.path.relpath(name, folder)}")[0] for name in names)
    return Reject(path, None, "linked_folder", "link to a folder, not followed", "file ignored"), behind


def _listed(root: Path, base: str, target: str) -> Iterator[tuple[str, str | None]]:
    """`_files_below` for lines of a .txt list: `./x` is relative to the list's folder, `x` to data.yaml's `path`."""
    try:
        data = (read_file(root, target, MAX_LIST_BYTES) or b"").removeprefix(b"\xef\xbb\xbf")
    except Unreadable as error:
        raise UserError(f"{root}: {error}") from None
    if (lines := data.count(b"\n") + 1) > MAX_LIST_LINES:
        raise UserError(f"{root / target}: {lines:,} lines, allowed are {MAX_LIST_LINES:,}")
    for line in data.splitlines():
        entry = os.fsdecode(line.strip())
        if entry:
            path = relative_path(root, str(Path(target).parent) if entry.startswith("./") else base, entry)
            yield (writable(entry)[0], OUTSIDE) if path is None else writable(path)


def _rows_of(root: Path, path: str) -> int:
    with suppress(Unreadable):
        return count_rows(read_file(root, path) or b"")
    return 1


def _is_folder_inside(root: Path, path: str) -> bool:
    with suppress(UserError):
        return inside(root, path).is_dir()
    return False


def is_image(name: str, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether the name ends in a suffix that is read, or in one of `suffixes`."""
    return name.lower().endswith(SUFFIXES + suffixes)


def _stem(path: str, folder: PurePosixPath) -> str:
    return key_of(PurePosixPath(path).relative_to(folder).with_suffix("").as_posix() + ".")[:-1]
