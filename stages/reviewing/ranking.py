"""The order in which images are worth checking: most doubtful first, those like already checked ones last."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

WORDS = 4
"""Number of 64-bit integers in a perceptual hash."""


class Entry(NamedTuple):
    """One image. `boxes`: their number. `score`, `reasons`: of its doubts. `checked`: a person drew all its labels."""

    image_id: str
    path: str
    sha256: str
    split: str
    boxes: int
    score: float
    reasons: str
    checked: bool = False


class Ranked(NamedTuple):
    """`twin`: path of the image that has been checked, or comes before, and is a near-duplicate; None without one."""

    entry: Entry
    twin: str | None


def ranked(
    entries: Iterable[Entry], first: int, hash_of: Callable[[Entry], bytes | None], max_bits: int | None
) -> list[Ranked]:
    """The `first` of `entries` that are not checked, by score, then path.

    Near-duplicates of one that is checked, or that comes before, come after all the others.

    `hash_of`: 32 bytes, asked for only as far down as needed; None where an image cannot be compared. `max_bits`:
    near-duplicates differ in at most so many bits; None: nothing is compared.
    """
    entries = list(entries)
    order = sorted((one for one in entries if not one.checked), key=lambda entry: (-entry.score, entry.path))
    if max_bits is None:
        return [Ranked(entry, None) for entry in order[:first]]
    known, paths = np.empty((len(entries), WORDS), np.uint64), []
    kept, twins = [], []
    for entry in [*(one for one in entries if one.checked), *order]:
        if len(kept) == first:
            break
        code = hash_of(entry)
        words = None if code is None else np.frombuffer(code, np.uint64)
        bits = [] if words is None else np.bitwise_count(known[: len(paths)] ^ words).sum(1)
        if not entry.checked and len(bits) and bits.min() <= max_bits:
            twins.append(Ranked(entry, paths[int(bits.argmin())]))
            continue
        if not entry.checked:
            kept.append(Ranked(entry, None))
        if words is not None:
            known[len(paths)] = words
            paths.append(entry.path)
    return [*kept, *twins][:first]
