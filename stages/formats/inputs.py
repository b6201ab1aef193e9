"""The images to predict, as named on the command line, and the name under which each one's outputs are written."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from stages.common.errors import UserError
from stages.data.decoding import BadImage
from stages.data.images import rgb_of
from stages.data.root_files import SUFFIXES, UNREAD_SUFFIXES, Unreadable, read_file, visible_files

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


def find_images(inputs: list[str], out: Path) -> list[Source]:
    """The images that `inputs` name, sorted by `file`: files, folders with all below them, and glob patterns.

    Folders and patterns give files with the suffix of an image, without hidden files and without files in `out`; see
    `unread_images` for those that they do not give. Raises UserError for an input that names no image, and
    for a folder that cannot be listed.
    """
    paths: set[Path] = set()
    roots: set[Path] = set()
    for text in inputs:
        files, root = _named_by(text)
        theirs = _outside(files, out)
        if files and not theirs:
            raise UserError(f"{text}: is inside of --out {out}, which is never an input; use another --out")
        if not files:
            raise UserError(f"{text}: no image there ({', '.join(SUFFIXES)})")
        paths |= theirs
        roots |= root
    shared = Path(os.path.commonpath(roots))
    return named({path.relative_to(shared).as_posix(): path for path in paths})


def shared_folder(sources: list[Source]) -> Path:
    """The folder that all inputs share."""
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


def read(source: Source, white_level: float | None = None) -> tuple[str, np.ndarray]:
    """SHA-256 and upright (H, W, 3) uint8 RGB pixels; `white_level` is that of the model's data set.

    Raises BadImage with the reason when there are none.
    """
    try:
        source.file.encode()
        if found := NOT_XML.search(source.file):
            raise BadImage(f"its name contains {found[0]!r}, which XML cannot hold")
        if len(os.fsencode(PurePosixPath(source.name).name)) > LONGEST_NAME:
            raise BadImage(f"its name is longer than {LONGEST_NAME} bytes, too long for the output files")
        path = source.path.resolve()
        data = read_file(path.parent, path.name)
        if data is None:
            raise BadImage("cannot be read (No such file or directory)")
        return hashlib.sha256(data).hexdigest(), rgb_of(data, white_level)
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from None
    except (UnicodeEncodeError, Unreadable) as error:  # UnicodeEncodeError: a name that is not UTF-8
        raise BadImage(str(error)) from None


def unread_images(inputs: list[str], out: Path) -> dict[str, str]:
    """Path to reason of what looks like an image in the folders and patterns of `inputs` and is not read: files of
    other suffixes, and all that is behind links to folders."""
    links: set[Path] = set()
    files = {path for text in inputs for path in _named_by(text, UNREAD_SUFFIXES, links.add)[0]}
    reason = f"{{}} is not read: convert it to one of {' '.join(SUFFIXES)}"
    found = {str(path): reason.format(path.suffix) for path in _outside(files, out) if _is_one(path, UNREAD_SUFFIXES)}
    return dict(sorted({**found, **{str(link): "a link to a folder, not followed" for link in links}}.items()))


def _named_by(
    text: str, suffixes: tuple[str, ...] = SUFFIXES, linked: Callable[[Path], None] = lambda link: None
) -> tuple[set[Path], set[Path]]:
    """Absolute paths of the images that one input names, and the folders in which it names them."""
    path = _absolute(text)
    if path.is_dir():
        return _below(path, suffixes, linked), {path}
    if path.exists():
        return {path}, {path.parent}
    files, roots = set(), set()
    for match in sorted(glob.glob(text, recursive=True)):  # noqa: PTH207 pathlib takes no absolute pattern
        found = _absolute(match)
        files |= _below(found, suffixes, linked) if found.is_dir() else {found} if _is_one(found, suffixes) else set()
        roots.add(found if found.is_dir() else found.parent)
    return files, roots


def _absolute(text: str) -> Path:
    """Without `..`, but with links as they are: the file behind a link may have another name."""
    return Path(os.path.normpath(Path(text).absolute()))


def _outside(files: set[Path], out: Path) -> set[Path]:
    """Those of `files` that are not in `out`, with links and `..` resolved."""
    real = out.resolve()
    ours = {folder for folder in {path.parent for path in files} if folder.resolve().is_relative_to(real)}
    return {path for path in files if path.parent not in ours}


def _below(folder: Path, suffixes: tuple[str, ...], linked: Callable[[Path], None]) -> set[Path]:
    return {path for path in visible_files(folder, linked) if _is_one(path, suffixes)}


def _is_one(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes
