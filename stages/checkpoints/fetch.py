"""Where weights come from: a verified, resumable download into a cache, or a local folder."""

import errno
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from stages.common.errors import UserError
from stages.common.files import new_folder, sha256_file
from stages.common.progress import progress
from stages.common.workdir import work_folder

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
"""Errors of the local disk, not of the server."""

FILES = ("config.json", "model.safetensors")
"""What a folder of weights holds."""


def cache_folder(path: Path) -> Path:
    """`path`, whose `~` is the home folder; for a user without one, a folder in the work folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        return work_folder() / "downloads"


def copy_folder(source: Path, out: Path) -> None:
    """Copy a folder of weights byte for byte. Raises UserError when one of its files is missing."""
    for name in FILES:
        if not (source / name).is_file():
            raise UserError(f"{source / name}: not found; a folder of weights holds {' and '.join(FILES)}")
    with new_folder(out) as part:
        for name in FILES:
            shutil.copyfile(source / name, part / name)


def fetch(url: str, path: Path, sha256: str | None, offline: str) -> Path:
    """Download `url` to `path` unless `path` exists, and return `path`.

    With `sha256` the bytes are checked, also those of an earlier download. `offline`: what the error tells the user to
    do without a network. Raises UserError when the download fails or the bytes are not the expected ones.
    """
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _download(url, part)
        except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
            if getattr(error, "errno", None) in OF_THE_DISK:
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise UserError(f"{url}: cannot be downloaded ({error}). {offline}") from None
        _check(part, sha256, url)
        part.replace(path)
    _check(path, sha256, url)
    return path


def _download(url: str, part: Path) -> None:
    """Append the missing bytes to `part`; start again where the server cannot resume."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: `part` is complete, or the file on the server has changed
            raise
        part.unlink()
        return _download(url, part)
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        start = file.tell()
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with progress((), f"download {url.rsplit('/', 1)[-1]}", "bytes", total=total) as bar:
            bar.update(start)
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and file.tell() != total:
            raise OSError(f"the connection was closed after {file.tell():,} of {total:,} bytes; run again to resume")


def _check(path: Path, sha256: str | None, url: str) -> None:
    if sha256 is None or (found := sha256_file(path)) == sha256:
        return
    path.unlink()
    raise UserError(f"{path}: SHA-256 is {found}, the file at {url} has {sha256}. The file was removed; run again")
