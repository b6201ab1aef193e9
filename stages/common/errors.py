"""How a stage ends: a user's mistake, a full disk and a signal are one clear line each, never a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import FrameType

import typer

STOPPING = (signal.SIGINT, signal.SIGTERM)


class UserError(Exception):
    """Something the user can mend: names the file, the line where there is one, the value and what is allowed."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Like KeyboardInterrupt it is no Exception: nobody who handles errors takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def run(command: Callable[..., None]) -> None:
    """Run a stage's `main` as a command.

    A UserError or an OSError becomes one line on stderr and exit status 1; Ctrl-C and SIGTERM become one line and exit
    status 130 or 143, after every `with` and `finally` on the way out.
    """
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        # processes that load data were forked with this handler: they go when their parent does
        if os.getpid() == owner:
            raise Stopped(number)

    for number in STOPPING:
        signal.signal(number, stop)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except UserError as error:
        _exit(f"error: {error}", 1)
    except OSError as error:
        _exit(f"error: {explain(error)}", 1)
    except Stopped as stopped:
        _exit(f"stopped by {stopped}; run it again to go on", stopped.status)


@contextmanager
def held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of the block: for changes that must be made together. Main thread only."""
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda got, _: arrived.append(got)) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def explain(error: OSError) -> str:
    """File and reason of an error of the operating system, on one line."""
    where = f"{error.filename}: " if error.filename is not None else ""
    reason = " ".join(str(error).split()) if error.errno is None else os.strerror(error.errno)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full ({reason}): free some space and run it again"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{where}is a file, where a folder is needed"
    return where + reason


@contextmanager
def cancelling(pool: Executor) -> Iterator[Executor]:
    """A pool of workers that, on an error or a signal, finishes what it is at and begins nothing that still waits."""
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ignore_ctrl_c() -> None:
    """For processes that work for another: Ctrl-C reaches them all, and the one that they work for ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _exit(line: str, status: int) -> None:
    line = " ".join(line.splitlines())  # a file name may hold a line break
    # on a line of its own, after a progress bar that stands where it was
    print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr)
    sys.exit(status)
