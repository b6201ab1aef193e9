"""The order in which images are worth checking: most doubtful first, those like already checked ones last."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

WORDS = 4
"""A perceptual hash as unsigned integers of 64 bits."""


class Entry(NamedTuple):
    """One image of the list. `score`: sum of the doubts; `reasons`: in words; `boxes`: their number."""

    image_id: str
    path: str
    sha256: str
    split: str
    boxes: int
    score: float
    reasons: str


class Ranked(NamedTuple):
    """`twin`: path of the image that has been checked, or comes before, and looks the same; None without one."""

    entry: Entry
    twin: str | None


def ranked(
    entries: Iterable[Entry],
    first: int,
    hash_of: Callable[[Entry], bytes | None],
    max_bits: int | None,
    checked: Sequence[tuple[str, bytes]] = (),
) -> list[Ranked]:
    """The `first` of `entries` by score, then path, near-duplicates of others behind all the rest.

    `hash_of`: 32 bytes, asked for only as far down as needed; None where an image cannot be compared. `max_bits`:
    near-duplicates differ in at most so many bits; None: nothing is compared. `checked`: path and hash of images that
    need no check.
    """
    order = sorted(entries, key=lambda entry: (-entry.score, entry.path))
    if max_bits is None:
        return [Ranked(entry, None) for entry in order[:first]]
    known = np.empty((len(checked) + len(order), WORDS), np.uint64)
    paths = []
    for path, code in checked:
        known[len(paths)] = np.frombuffer(code, np.uint64)
        paths.append(path)
    kept, twins = [], []
    for entry in order:
        if len(kept) == first:
            break
        code = hash_of(entry)
        words = None if code is None else np.frombuffer(code, np.uint64)
        bits = [] if words is None else np.bitwise_count(known[: len(paths)] ^ words).sum(1)
        if len(bits) and bits.min() <= max_bits:
            twins.append(Ranked(entry, paths[int(bits.argmin())]))
            continue
        kept.append(Ranked(entry, None))
        if words is not None:
            known[len(paths)] = words
            paths.append(entry.path)
    return [*kept, *twins][:first]
