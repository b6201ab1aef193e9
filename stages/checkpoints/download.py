"""Large files from the network: resumed where they broke off, kept in a cache, trusted only by their SHA-256."""

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.common.progress import progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60


def fetch(url: str, path: Path, sha256: str | None, offline: str) -> Path:
    """The file at `url`, kept at `path`; fetched only when it is not there yet. Returns `path`.

    With `sha256` the bytes are checked, those of an earlier download too. `offline` tells the user what to do
    without a network. Raises UserError when the download fails or the bytes are not the expected ones.
    """
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _download(url, part)
        except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
            raise UserError(f"{url}: cannot be downloaded ({error}). {offline}") from None
        _check(part, sha256, url)
        part.replace(path)
    _check(path, sha256, url)
    return path


def _download(url: str, part: Path) -> None:
    """Append to `part` what it lacks; start anew where the server cannot continue."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: nothing is missing, or the file there is another one by now
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
            raise OSError(f"the connection broke off after {file.tell():,} of {total:,} bytes; run again to go on")


def _check(path: Path, sha256: str | None, url: str) -> None:
    if sha256 is None or (found := sha256_file(path)) == sha256:
        return
    path.unlink()
    raise UserError(f"{path}: SHA-256 is {found}, the file at {url} has {sha256}. The file was removed; run again")
