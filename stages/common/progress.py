"""The progress bar of long loops, on stderr."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T], title: str, unit: str, total: int | None = None, done: int = 0, hidden: bool = False
) -> "tqdm[T]":
    """Iterate over `items`, showing count, rate in `unit`/s and time left; `done` of `total` are done already."""
    return tqdm(
        items,
        desc=title,
        unit=f" {unit}",
        total=total,
        initial=done,
        dynamic_ncols=True,
        smoothing=0.1,
        disable=hidden,
    )
