"""The images to predict, as named on the command line, and the name under which each one's outputs are written."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from stages.common.errors import UserError
from stages.data.decoding import BadImage
from stages.data.images import rgb_of
from stages.data.root_files import MAX_BYTES, SUFFIXES, UNREAD_SUFFIXES, Unreadable, open_file, visible_files

SUFFIX_IN = {"records": ".json", "masks": ".png", "overlays": ".jpg", "labels": ".txt"}
"""Output folder to the suffix of the file that each image has in it."""

LONGEST_NAME = 235
"""Bytes of a name; a temporary file's name is longer by a prefix and a suffix, and file systems allow 255."""

NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


class Source(NamedTuple):
    """An input image. `file`: its path below the folder that all inputs share, with `/`, as annotation tools name it.

    `name`: `file` without its suffix. It keeps the suffix where two images would have the same name, or where one of
    its output files would have the name of another image's folder.
    """

    path: Path
    file: str
    name: str


def find_images(inputs: list[str], out: Path) -> tuple[list[Source], dict[str, str]]:
    """The images that `inputs` name, sorted by `file`: files, folders with all below them, and glob patterns.

    Folders and patterns give the files with an image suffix that are not hidden. The second result, path to reason,
    holds what is not read there: image formats that are not supported, and links to folders. Files in `out` are in
    neither. Raises UserError for an input that names no image, and for a folder that cannot be listed.
    """
    found: dict[Path, str | None] = {}
    images: set[Path] = set()
    roots: set[Path] = set()
    for text in inputs:
        theirs, root = _named_by(text)
        ours = {path for path, reason in theirs.items() if reason is None}
        if ours and not _outside(ours, out):
            raise UserError(f"{text}: is inside of --out {out}, which is never an input; use another --out")
        if not ours:
            raise UserError(f"{text}: no image there ({', '.join(SUFFIXES)})")
        found |= theirs
        images |= ours
        roots |= root
    shared, outside = Path(os.path.commonpath(roots)), _outside(found, out)
    unread = {str(path): found[path] for path in sorted(outside - images, key=str)}
    return named({path.relative_to(shared).as_posix(): path for path in images & outside}), unread


def shared_folder(sources: list[Source]) -> Path:
    """The folder below which `Source.file` of all sources is a path."""
    return sources[0].path.parents[sources[0].file.count("/")]


def named(paths: dict[str, Path]) -> list[Source]:
    """Sources of `paths` (by `file`), each with a name of its own; see `Source`."""
    names = {file: file.removesuffix(path.suffix) for file, path in paths.items()}
    folders = {str(parent) for file in paths for parent in PurePosixPath(file).parents}
    while clashes := _clashes(names, folders):
        names = {file: file if file in clashes else name for file, name in names.items()}
    return [Source(paths[file], file, names[file]) for file in sorted(paths)]


def _clashes(names: dict[str, str], folders: set[str]) -> set[str]:
    """The files that must keep their suffix."""
    count = Counter(names.values())
    return {
        file
        for file, name in names.items()
        if count[name] > 1 or (name != file and any(name + suffix in folders for suffix in SUFFIX_IN.values()))
    }


def file_in(folder: Path, name: str) -> Path:
    """The file of the image called `name` in `folder`, one of the output folders in SUFFIX_IN."""
    return folder / f"{name}{SUFFIX_IN[folder.name]}"


def open_input(path: Path) -> BinaryIO:
    """An input, which may be a link, opened for reading. Raises FileNotFoundError or Unreadable, as `open_file`."""
    try:
        real = path.resolve()
    except RuntimeError:
        raise Unreadable(f"{path.name} is a link in a loop of links") from None
    return open_file(real.parent, real.name)


def read(source: Source, white_level: float | None = None) -> tuple[str, np.ndarray]:
    """SHA-256 and upright (H, W, 3) uint8 RGB pixels of an image; `white_level`: of the model's data set.

    Raises BadImage, with the reason, where it cannot be used.
    """
    try:
        source.file.encode()
        if found := NOT_XML.search(source.file):
            raise BadImage(f"its name contains {found[0]!r}, which XML cannot hold")
        if len(os.fsencode(PurePosixPath(source.name).name)) > LONGEST_NAME:
            raise BadImage(f"its name is longer than {LONGEST_NAME} bytes, too long for the output files")
        with open_input(source.path) as file:
            data = file.read(MAX_BYTES)
        return hashlib.sha256(data).hexdigest(), rgb_of(data, white_level)
    except FileNotFoundError:
        raise BadImage("cannot be read (No such file or directory)") from None
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from None
    except (UnicodeEncodeError, Unreadable) as error:  # UnicodeEncodeError: a name that is not UTF-8
        raise BadImage(str(error)) from None


def _named_by(text: str) -> tuple[dict[Path, str | None], set[Path]]:
    """Absolute paths of what one input names, each with the reason why it is not read, None for an image; and the
    folders in which it names them."""
    if not text:
        raise UserError("an input is empty: name an image, a folder or a pattern; `.` is this folder")
    path = _absolute(text)
    if path.exists() and not path.is_dir():
        return {path: None}, {path.parent}
    # pathlib does not accept absolute patterns
    paths = [path] if path.is_dir() else map(_absolute, sorted(glob.glob(text, recursive=True)))  # noqa: PTH207
    found: dict[Path, str | None] = {}
    roots = set()
    for match in paths:
        found |= _below(match) if match.is_dir() else _judged([match])
        roots.add(match if match.is_dir() else match.parent)
    return found, roots


def _below(folder: Path) -> dict[Path, str | None]:
    links: list[Path] = []
    return _judged(visible_files(folder, links.append)) | dict.fromkeys(links, "a link to a folder, not followed")


def _judged(files: Iterable[Path]) -> dict[Path, str | None]:
    """Those of `files` that look like images, each with the reason why it is not read."""
    reason = f"{{}} is not read: convert it to one of {' '.join(SUFFIXES)}"
    return {
        path: None if path.suffix.lower() in SUFFIXES else reason.format(path.suffix)
        for path in files
        if path.suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES)
    }


def _absolute(text: str) -> Path:
    """`text` as absolute path without `..`. Links are not followed: the file behind a link may have another name."""
    return Path(os.path.normpath(Path(text).absolute()))


def _outside(files: Collection[Path], out: Path) -> set[Path]:
    """Those of `files` that are not in `out`, with links and `..` resolved."""
    real = out.resolve()
    ours = {folder for folder in {path.parent for path in files} if folder.resolve().is_relative_to(real)}
    return {path for path in files if path.parent not in ours}
