"""A data root on object storage, such as `s3://BUCKET/FOLDER`: its objects under the interface of a Path, by fsspec.

Needs `uv pip install --group cluster`. Credentials, region and endpoint are those of the storage's own client: for S3
AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on. Objects must be listed to be found, but not to be read.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError

MARKS = ("ETag", "etag", "md5Hash", "md5", "mtime", "created")
"""What storages call a property of an object that changes with its content, best first."""


class RemotePath(PurePosixPath):
    """An object, or a folder that names of objects imply. What exists is known from `RemotePath.listed` alone."""

    listed: "Listing | None" = None

    def __str__(self) -> str:
        scheme, colon, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}" if colon else scheme

    def absolute(self) -> "RemotePath":
        return self

    def resolve(self) -> "RemotePath":
        return type(self)(posixpath.normpath(super().__str__()))

    def is_dir(self) -> bool:
        return self.listed is not None and self in self.listed.folders

    def is_file(self) -> bool:
        return self.listed is not None and self in self.listed.sizes

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["RemotePath"]:
        if not self.is_dir():
            raise FileNotFoundError(str(self))
        return (self / name for name in sorted(self.listed.folders[self]))

    def walk(self) -> Iterator["RemotePath"]:
        """All objects below, except hidden ones: with a name, or a folder in it, that starts with a dot."""
        for path in self.iterdir():
            if not path.name.startswith("."):
                yield from path.walk() if path.is_dir() else (path,)

    def size(self) -> int | None:
        """Size in bytes; None where no objects are listed. Raises FileNotFoundError."""
        if self.listed is None:
            return None
        if not self.is_file():
            raise FileNotFoundError(str(self))
        return self.listed.sizes[self]

    def read(self) -> bytes:
        """Content of the object. Raises FileNotFoundError, and UserError when the storage does not answer."""
        return self._do("cat_file")

    def upload(self, file: Path) -> None:
        """Copy a local file here; the object is complete or absent. Raises UserError."""
        self._put("put_file", str(file))

    def write(self, content: bytes) -> None:
        """Write the object; it is complete or absent. Raises UserError."""
        self._put("pipe", value=content)

    def download(self, file: Path) -> None:
        """Copy it into a local file. Raises as `read`."""
        self._do("get_file", lpath=str(file))

    def remove_folder(self) -> None:
        """Remove all objects below, if there are any. Raises UserError."""
        with suppress(FileNotFoundError):
            self._do("rm", recursive=True)

    def _put(self, what: str, *before: str, **options: object) -> None:
        try:
            self._do(what, *before, **options)
        except FileNotFoundError as error:  # such as a bucket that does not exist
            raise no_answer(self, error) from None

    def _do(self, what: str, *before: str, **options: object) -> bytes | None:
        import fsspec

        try:
            storage, name = fsspec.url_to_fs(str(self))  # cached by fsspec, per process
            return getattr(storage, what)(*before, name, **options)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise no_answer(self, error) from None


class Listing:
    """What is below a root: `sizes` of objects in bytes, by path, and names of what is in each of the `folders`."""

    def __init__(self, root: RemotePath, sizes: Mapping[str, int]) -> None:
        """`sizes` by path relative to `root`."""
        self.sizes = {root / path: size for path, size in sizes.items()}
        self.folders: dict[RemotePath, set[str]] = {root: set()}
        for path in self.sizes:
            while path != root:
                above, name = path.parent, path.name
                known = above in self.folders
                self.folders.setdefault(above, set()).add(name)
                if known:
                    break
                path = above


def data_root(text: str) -> Path | RemotePath:
    """The data root of `text`, a path or a URL. Raises UserError for a URL without host or bucket."""
    if re.search("://(/|$)", text):
        raise UserError(
            f"{text}: a URL needs a host or a bucket after `://`; a folder of this machine is a path, as /data"
        )
    return RemotePath(text) if "://" in text else Path(text)


def readers(root: Path | RemotePath) -> int | None:
    """How many files of `root` to read at once: one per core; more from a storage, whose answers take longer."""
    return 32 if isinstance(root, RemotePath) else os.cpu_count()


def list_objects(root: RemotePath) -> dict[str, tuple[int, str]]:
    """Size in bytes and mark of each object below `root`, by relative path, sorted. Raises UserError."""
    import fsspec

    try:
        storage, name = fsspec.url_to_fs(str(root))
        found = storage.find(name, detail=True)
    except Exception as error:
        raise no_answer(root, error) from None
    if not found:
        raise UserError(f"{root}: nothing is there")
    marks = {}
    for path, about in sorted(found.items()):
        size, mark = about.get("size"), next((about[key] for key in MARKS if about.get(key) is not None), None)
        if size is None or mark is None:
            lacks = "size" if size is None else f"mark that changes with the content ({', '.join(MARKS)})"
            raise UserError(f"{root / posixpath.relpath(path, name)}: the storage lists no {lacks}; use one that does")
        marks[posixpath.relpath(path, name)] = (int(size), str(mark))
    return marks


def no_answer(path: RemotePath, error: Exception) -> UserError:
    """A UserError of one line for whatever a storage's client raises."""
    if isinstance(error, ImportError):
        return UserError(f"{path}: this storage needs a package more: uv pip install --group cluster ({error})")
    if str(error).startswith("Protocol not known"):
        return UserError(f"{path}: fsspec reads no such URL ({error})")
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return UserError(f"{path}: the storage refuses or does not answer; nothing is lost, run it again ({reason})")
