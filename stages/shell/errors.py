"""A user's mistake is one clear line, never a traceback."""

import sys
from collections.abc import Callable

import typer


class UserError(Exception):
    """Something the user can mend: names the file, the line where there is one, the value and what is allowed."""


def run(command: Callable[..., None]) -> None:
    """Run a stage's `main` as a command; a UserError becomes one line on stderr and exit status 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except UserError as error:
        # a file name may hold a line break
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(1)
