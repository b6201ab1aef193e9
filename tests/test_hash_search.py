"""The search by hashed bits finds the pairs of a comparison of all with all."""

import numpy as np
import pytest

from stages.ingestion import hash_search
from stages.ingestion.hash_search import BITS, MISSED, nearest, tables_for

LIMIT = 40


def flipped(rng: np.random.Generator, hashed: np.ndarray, count: int) -> np.ndarray:
    flags = np.zeros(BITS, bool)
    flags[rng.permutation(BITS)[:count]] = True
    return hashed ^ np.packbits(flags).view(np.uint64)


def hashes(seed: int, count: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` hashes, and as many others, of which `copies` differ from one of them in 0 to 60 bits."""
    rng = np.random.default_rng(seed)
    others = rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
    mine = rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
    for index in range(copies):
        mine[index] = flipped(rng, others[rng.integers(count)], int(rng.integers(61)))
    return mine, others


def both_ways(monkeypatch, mine, others, *groups) -> list[np.ndarray]:
    """Of `nearest` by hashed bits and by all pairs: (bits, index) of those within the limit."""
    found = []
    for limit in (0, 1 << 62):
        monkeypatch.setattr(hash_search, "ALL_PAIRS", limit)
        monkeypatch.setattr(hash_search, "tables_for", lambda count, _: (8, 110))
        bits, index = nearest(mine, others, *groups, LIMIT)
        found.append(np.stack([bits, index])[:, bits <= LIMIT])
    return found


def test_the_same_pairs_as_all_with_all(monkeypatch):
    mine, others = hashes(0, 500, 200)
    likely, every = both_ways(monkeypatch, mine, others, np.arange(500), np.arange(500, 1000))
    assert every.shape[1] > 100
    np.testing.assert_array_equal(likely, every)


def test_crowds_of_like_images_are_told_apart_by_more_bits(monkeypatch):
    """One camera: all hashes share 200 bits, so that all agree in most keys; and a crowd of equal ones."""
    mine, others = hashes(1, 600, 100)
    for many in (mine, others):
        many[:, :3], many[:, 3] = 77, many[:, 3] & np.uint64(2**56 - 1)
    others[:300] = others[0]
    monkeypatch.setattr(hash_search, "CROWDED", 16)
    likely, every = both_ways(monkeypatch, mine, others, np.arange(600), np.arange(600, 1200))
    assert every.shape[1] == 600
    # of equally near ones any may be found; hardly a nearer one is overlooked
    assert (likely[0] == every[0]).mean() > 0.98 and (likely[0] >= every[0]).all()


def test_files_with_the_same_bytes_make_no_pair(monkeypatch):
    mine, others = hashes(2, 50, 0)
    mine[0] = others[7]
    groups = np.arange(50), np.arange(50, 100)
    assert all(part.tolist() == [[0], [7]] for part in both_ways(monkeypatch, mine, others, *groups))
    groups[0][0] = groups[1][7]
    assert all(part.shape[1] == 0 for part in both_ways(monkeypatch, mine, others, *groups))


@pytest.mark.parametrize("count", [10**5, 10**6, 10**7])
def test_the_number_of_keys_bounds_what_is_missed_and_grows_slowly(count):
    bits, tables = tables_for(count, LIMIT)
    agree = np.prod([(BITS - LIMIT - place) / (BITS - place) for place in range(bits)])
    assert (1 - agree) ** tables <= MISSED
    assert 2 ** (bits - 1) < count <= 2**bits and tables <= 1003


def test_where_keys_do_not_pay_all_pairs_are_compared():
    assert tables_for(5000, LIMIT) is None
    assert tables_for(10**6, 127) is None
