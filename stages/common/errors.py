"""Errors and signals: each ends a stage with one line on stderr and an exit status, without a traceback."""

import errno
import io
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import FrameType

import typer

from stages.common.workdir import keep_lock

STOPPING = (signal.SIGINT, signal.SIGTERM)

SOME_LEFT_OUT = 3
"""Exit status of a command that has refused or skipped some inputs, with a line for each, and done the rest."""


class UserError(Exception):
    """An error that the user can correct: names the file, the line if there is one, the value and what is allowed."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. A BaseException, like KeyboardInterrupt, so that `except Exception` does not catch it.

    `status`: exit status of the process, 128 + signal number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def run(command: Callable[..., None]) -> None:
    """Run a stage's `main` as a command line program.

    A UserError, an OSError or a MemoryError becomes one line on stderr and exit status 1; Ctrl-C and SIGTERM become one
    line and exit status 130 or 143, after all `with` and `finally` blocks have been left.
    """
    owner = os.getpid()
    if sys.stderr is None:  # closed, as by `2>&-`: progress bars and notes would raise
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 must not end a command that is done
        sys.stdout.reconfigure(errors="backslashreplace")

    def stop(number: int, _frame: FrameType | None) -> None:
        # forked data loading processes inherit this handler; their parent ends them
        if os.getpid() == owner:
            raise Stopped(number)

    for number in STOPPING:
        signal.signal(number, stop)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        keep_lock()
        app()
    except UserError as error:
        _exit(f"error: {error}", 1)
    except OSError as error:
        _exit(f"error: {explain(error)}", 1)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        _exit("error: out of memory; run it with fewer workers or smaller batches, or on a machine with more", 1)
    except Stopped as stopped:
        _exit(f"stopped by {stopped}; run it again to resume", stopped.status)


def lacks_memory(error: Exception) -> bool:
    """Whether `error` means that memory is lacking; PyTorch raises a RuntimeError for that."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("out of memory", "allocate memory")
    )


@contextmanager
def held(arrived: list[int] | None = None) -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM to the end of the block, for changes that belong together. Main thread only.

    The numbers of those that come meanwhile are appended to `arrived`; the first is raised again at the end.
    """
    arrived = [] if arrived is None else arrived
    before = {number: signal.signal(number, lambda got, _: arrived.append(got)) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def explain(error: OSError) -> str:
    """File and reason of an OSError, on one line."""
    where = f"{error.filename}: " if error.filename is not None else ""
    reason = " ".join(str(error).split()) if error.errno is None else os.strerror(error.errno)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full ({reason}): free some space and run it again"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{where}is a file, where a folder is needed"
    return where + reason


@contextmanager
def cancelling(pool: Executor) -> Iterator[Executor]:
    """`pool` as a context: on an error or a signal, running tasks are finished and waiting ones are cancelled."""
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def printable(text: str) -> str:
    """`text` as one line without control characters and lone surrogates: a file's name or content may hold any."""
    return "".join(
        " " if letter in "\n\r" else repr(letter)[1:-1] if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def _exit(line: str, status: int) -> None:
    line = printable(line)
    # a new line, because a progress bar may occupy the current one
    print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr)
    sys.exit(status)
