"""For each of many hashes the nearest one of another set, by the number of bits that differ.

Small sets are compared pair by pair. Of large ones, hashes are compared that agree in k bits chosen at random, for as
many choices as it takes that two hashes that differ in `max_bits` agree in none of them with a probability of MISSED
at most (locality-sensitive hashing by bit sampling: P. Indyk, R. Motwani, "Approximate nearest neighbors: towards
removing the curse of dimensionality", STOC 1998). With N hashes k grows as log2(N), so that unlike hashes seldom agree.
"""

import math
from collections.abc import Iterator

import numpy as np

BITS = 256
ALL_PAIRS = 1 << 28
"""So many pairs are compared one by one, in seconds."""
MISSED = 1e-6
AT_ONCE = 1 << 21
"""Pairs compared together; bounds memory."""
CROWDED = 256
"""Hashes that agree with more others than this in their k bits are told apart by more bits, up to MOST_BITS, from where
on only so many are compared: images of one camera, and of one scene."""
MOST_BITS = 60
NOTHING = np.iinfo(np.int64).max


def nearest(
    mine: np.ndarray, others: np.ndarray, my_group: np.ndarray, other_group: np.ndarray, max_bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bits that differ, and the index of the nearest of `others`; of equally near ones the first.

    `mine`, `others`: (N, 4), (M, 4) uint64. Pairs of one group (files with the same bytes) are not compared. Beyond
    `max_bits` the distance may be any larger number.
    """
    mine, others = np.ascontiguousarray(mine.T), np.ascontiguousarray(others.T)
    pairs = _all_pairs(mine.shape[1], others.shape[1])
    if mine.shape[1] * others.shape[1] > ALL_PAIRS and (tables := tables_for(others.shape[1], max_bits)):
        pairs = _likely_pairs(mine, others, *tables)
    best = np.full(mine.shape[1], NOTHING)
    for left, right in pairs:
        bits = sum(np.bitwise_count(a[left] ^ b[right]).astype(np.int64) for a, b in zip(mine, others, strict=True))
        near = (bits <= max_bits) & (my_group[left] != other_group[right])
        np.minimum.at(best, left[near], (bits[near] << 32) + right[near])
    return best >> 32, best & 0xFFFFFFFF


def tables_for(count: int, max_bits: int) -> tuple[int, int] | None:
    """Bits per key and number of keys for `count` hashes; None where comparing all pairs takes no longer."""
    bits = max(8, math.ceil(math.log2(count)))
    if max_bits + bits > BITS:
        return None
    agree = math.comb(BITS - max_bits, bits) / math.comb(BITS, bits)
    tables = math.ceil(math.log(MISSED) / math.log1p(-agree))
    return (bits, tables) if tables * 100 < count else None


def _all_pairs(count: int, others: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step = max(1, AT_ONCE // others)
    for start in range(0, count, step):
        left = np.arange(start, min(start + step, count))
        yield np.repeat(left, others), np.tile(np.arange(others), len(left))


def _likely_pairs(
    mine: np.ndarray, others: np.ndarray, bits: int, tables: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(tables):
        places, used = rng.permutation(BITS)[:MOST_BITS], bits
        left, right = np.arange(mine.shape[1]), np.arange(others.shape[1])
        while len(left):
            keys, theirs = _keys(mine, left, places[:used]), _keys(others, right, places[:used])
            order = np.argsort(theirs, kind="stable")
            right, theirs = right[order], theirs[order]
            first, end = (np.searchsorted(theirs, keys, side) for side in ("left", "right"))
            if used == MOST_BITS:
                end = np.minimum(end, first + CROWDED)
            few = end - first <= CROWDED
            yield from _joined(left[few], right, first[few], end[few])
            crowds = np.zeros(len(right) + 1, np.int64)
            np.add.at(crowds, first[~few], 1)
            np.add.at(crowds, end[~few], -1)
            left, right, used = left[~few], right[np.cumsum(crowds)[:-1] > 0], min(used + 8, MOST_BITS)


def _joined(
    left: np.ndarray, right: np.ndarray, first: np.ndarray, end: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of `left` with right[first:end] of its own."""
    some = end > first
    left, first, counts = left[some], first[some], (end - first)[some]
    total = np.cumsum(counts)
    start = 0
    while start < len(left):
        stop = max(start + 1, int(np.searchsorted(total, (total[start - 1] if start else 0) + AT_ONCE, "right")))
        own = counts[start:stop]
        within = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
        yield np.repeat(left[start:stop], own), right[np.repeat(first[start:stop], own) + within]
        start = stop


def _keys(hashes: np.ndarray, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The bits of some hashes at `places`, as one number each."""
    keys = np.zeros(len(rows), np.uint64)
    for place in places:
        keys = (keys << np.uint64(1)) | ((hashes[place // 64, rows] >> np.uint64(place % 64)) & np.uint64(1))
    return keys
