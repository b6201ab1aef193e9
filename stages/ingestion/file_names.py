"""Names of files in a data set: those that tables can hold, and hidden ones, which are not read."""

from pathlib import PurePosixPath

from stages.common.errors import printable
from stages.data.root_files import UNWRITABLE

HIDDEN = "hidden, and hidden files and folders are not read"


def is_hidden(path: str) -> bool:
    """Whether `visible_files` leaves out `path`, which is relative to a root: a name in it starts with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(path).parts)


def writable(path: str) -> tuple[str, str | None]:
    """`path` as tables, XML and terminals can hold it, and its problem: that this changed it, or that it is hidden."""
    if not UNWRITABLE.search(path):
        return path, HIDDEN if is_hidden(path) else None
    try:
        path.encode()
        return printable(path.replace("\n", "\\n").replace("\r", "\\r")), "file name holds a control character"
    except UnicodeEncodeError:
        return printable(path), "file name is not valid UTF-8"
