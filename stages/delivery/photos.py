"""Which photographs to predict, and under which name each one's outputs go."""

import glob
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.dataset.layout import SUFFIXES
from stages.dataset.photos import BadPhoto, probe_photo, read_photo
from stages.shell.errors import UserError


class Source(NamedTuple):
    """A photograph. `file` is its path below the folder that all inputs share, with `/`, as annotation tools name it;
    `name` is `file` without its suffix, or with it where two photographs would share a name."""

    path: Path
    file: str
    name: str


def find_photos(inputs: list[str], out: Path) -> list[Source]:
    """The photographs that `inputs` name, sorted by `file`: files, folders with all below them, and glob patterns.

    From folders and patterns only files with the suffix of a photograph are taken, and none in `out`, which may lie
    among them. Raises UserError for an input that names nothing.
    """
    paths: set[Path] = set()
    roots: set[Path] = set()
    for text in inputs:
        files, root = _named_by(text)
        files = {path for path in files if out.absolute() not in path.parents}
        if not files:
            raise UserError(f"{text}: no photograph there ({', '.join(SUFFIXES)})")
        paths |= files
        roots |= root
    shared = Path(os.path.commonpath(roots))
    return named({path.relative_to(shared).as_posix(): path for path in paths})


def named(paths: dict[str, Path]) -> list[Source]:
    """Sources of `paths` by `file`. Where names without suffix meet, all that meet keep theirs."""
    names = {file: file.removesuffix(path.suffix) for file, path in paths.items()}
    while clashes := {name for name, count in Counter(names.values()).items() if count > 1}:
        names = {file: file if name in clashes else name for file, name in names.items()}
    return [Source(paths[file], file, names[file]) for file in sorted(paths)]


def read(source: Source) -> tuple[str, np.ndarray]:
    """SHA-256 and upright (H, W, 3) uint8 RGB pixels. Raises BadPhoto with the reason why there are none."""
    try:
        source.file.encode()
        path = source.path.resolve()
        probe = probe_photo(path.read_bytes())
        return probe.sha256, read_photo(path.parent, path.name, probe.sha256, probe.exif_orientation)
    except OSError as error:
        raise BadPhoto(f"cannot be read ({error.strerror})") from None
    except (UnicodeEncodeError, UserError) as error:
        # a name that is not UTF-8; a file that changes while it is read
        raise BadPhoto(str(error)) from None


def _named_by(text: str) -> tuple[set[Path], set[Path]]:
    """Absolute paths of the photographs that one input names, and the folders it names them in."""
    path = _absolute(text)
    if path.is_dir():
        return _below(path), {path}
    if path.exists():
        return {path}, {path.parent}
    files, roots = set(), set()
    for match in sorted(glob.glob(text, recursive=True)):  # noqa: PTH207 pathlib takes no absolute pattern
        found = _absolute(match)
        files |= _below(found) if found.is_dir() else {found} & set(_photos([found]))
        roots.add(found if found.is_dir() else found.parent)
    return files, roots


def _absolute(text: str) -> Path:
    """Without `..`, but with links as they are: behind a link the file may bear another name."""
    return Path(os.path.normpath(Path(text).absolute()))


def _below(folder: Path) -> set[Path]:
    return _photos(Path(where) / name for where, _, names in os.walk(folder) for name in names)


def _photos(paths) -> set[Path]:
    return {path for path in paths if path.suffix.lower() in SUFFIXES}
