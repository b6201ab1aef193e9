"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines: the names of the columns, and the cells of each row as `str` writes them."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (columns, ["---"] * len(columns), *rows)]
