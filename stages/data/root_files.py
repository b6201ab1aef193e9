"""Files below a data root, which may come from anyone: which paths are inside, what is opened, how much is read.

All files of a data set are opened here: by ingest, by the fingerprint of the root, and by stages that read images.
"""

import configparser
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from stages.common.errors import UserError
from stages.common.workdir import project_folder
from stages.data.remote import RemotePath

MAX_BYTES = 1 << 30
"""Larger files are not read: no file of a data set needs a gigabyte, and a sparse file can have any size."""


SUFFIXES = (".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, by which images are found in folders."""

_CAMERAS = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".raf", ".raw", ".rw2")
_COMPRESSED = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl")
_GRAPHICS = (".dcm", ".exr", ".hdr", ".pgm", ".ppm", ".psd", ".svg", ".tga")
UNREAD_SUFFIXES = (*_CAMERAS, *_COMPRESSED, *_GRAPHICS)
"""Suffixes of images that are not read; they are reported as lost, so that nobody believes they are used."""


UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that names must not hold: XML, terminals or UTF-8 cannot carry them."""


class Unreadable(ValueError):
    """A file that exists but must not or cannot be read; the message is the reason, without absolute paths."""


def inside(root: Path, path: str) -> Path:
    """`path` below `root`, links resolved. Raises UserError when it is outside of `root` or not a valid path.

    A link from inside into this project's DVC cache counts as inside: DVC makes such links (cache.type symlink).
    """
    try:
        resolved, top = (root / path).resolve(), root.resolve()
        leads_out = not resolved.is_relative_to(top)
        if leads_out:
            cache = dvc_cache() if (root / path).parent.resolve().is_relative_to(top) else None
            leads_out = cache is None or not resolved.is_relative_to(cache)
    except (OSError, RuntimeError, ValueError) as error:
        # a loop of links, a zero byte in a name
        raise UserError(f"{root / path}: not a usable path ({error})") from None
    if leads_out:
        raise UserError(f"{root / path}: leads out of the data root, {root}")
    return resolved


def dvc_cache() -> Path | None:
    """Folder of the cached files of the DVC project around the working directory; None without one.

    Read from .dvc/config and .dvc/config.local, because importing DVC takes a second.
    """
    if (project := project_folder()) is None:
        return None
    settings, home = configparser.ConfigParser(interpolation=None), project / ".dvc"
    try:
        settings.read([home / "config", home / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{home}: its config cannot be read: {' '.join(str(error).split())}") from None
    # expanduser of pathlib raises an error where there is no home folder
    cache = (home / os.path.expanduser(settings.get("cache", "dir", fallback="cache"))).resolve()  # noqa: PTH111
    return cache / "files"


def open_file(root: Path, path: str, limit: int = MAX_BYTES) -> BinaryIO:
    """`path` below `root`, opened for reading. Raises FileNotFoundError or Unreadable.

    Refuses paths that lead out of the root, anything but regular files (opening a pipe would block forever), and files
    of more than `limit` bytes.
    """
    try:
        target = inside(root, path)
        if isinstance(target, RemotePath):
            return _open_object(target, path, limit)
        # opened first, then checked, so it cannot be replaced in between; non-blocking, so that a pipe can be refused
        handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        special = not (target.is_file() or target.is_dir())
        raise Unreadable(
            f"{path} is not a regular file" if special else f"{path} cannot be read ({error.strerror})"
        ) from None
    except UserError as error:
        if isinstance(root, RemotePath) and "leads out" not in str(error):
            raise
        # the error's own message holds absolute paths, which must not enter the tables
        why = "leads out of the data root" if "leads out" in str(error) else "is not a usable path"
        raise Unreadable(f"{path} {why}") from None
    status = os.fstat(handle)
    regular = stat.S_ISREG(status.st_mode)
    if regular and status.st_size <= limit:
        return os.fdopen(handle, "rb")
    os.close(handle)
    too_large = f"has {status.st_size:,} bytes, allowed are {limit:,}"
    raise Unreadable(f"{path} {too_large if regular else 'is not a regular file'}")


def _open_object(target: RemotePath, path: str, limit: int) -> BinaryIO:
    """`open_file` for an object, which is read as a whole."""
    data = b"" if (size := target.size() or 0) > limit else target.read()
    if (size := max(size, len(data))) > limit:
        raise Unreadable(f"{path} has {size:,} bytes, allowed are {limit:,}")
    return io.BytesIO(data)


def read_file(root: Path, path: str, limit: int = MAX_BYTES) -> bytes | None:
    """Bytes of `path` below `root`; None if there is no such file. Raises Unreadable, as `open_file`."""
    try:
        with open_file(root, path, limit) as file:
            return file.read(limit + 1)[:limit]  # a file that grows meanwhile stays bounded
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror})") from None


def visible_files(folder: Path, linked: Callable[[Path], None]) -> Iterator[Path]:
    """All files in and below `folder`, without hidden ones (macOS writes `._NAME` beside each file on other disks).

    Links to folders are not followed: `linked` is called with each. Raises UserError for a folder that cannot be
    listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})")

    if isinstance(folder, RemotePath):
        yield from folder.walk()
        return

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in folders:
            if (Path(parent) / name).is_symlink():
                linked(Path(parent) / name)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in files if not name.startswith("."))
