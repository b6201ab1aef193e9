"""Pseudo-masks on disk, as the rasterize stage leaves them."""

from pathlib import Path

import pyarrow as pa

from stages.common.files import sha256_file
from stages.data.tables import write_table
from stages.masks.shards import (
    CANDIDATE_ROWS,
    CANDIDATES,
    LABEL_MAPS,
    MASKS,
    Shard,
    read_shard,
    shard_indices,
    shard_path,
    write_index,
)


def write_split(folder: Path, *shards: tuple[list[dict], list[dict]]) -> None:
    """The shards of a split, each by the rows of its label maps and of its candidates."""
    entries = []
    for index, (masks, candidates) in enumerate(shards):
        kinds = ((LABEL_MAPS, MASKS, masks), (CANDIDATE_ROWS, CANDIDATES, candidates))
        for kind, schema, rows in kinds:
            write_table(shard_path(folder, kind, index), schema, rows)
        hashes = {kind: sha256_file(shard_path(folder, kind, index)) for kind, *_ in kinds}
        entries.append(Shard(index, len(masks), hashes))
    write_index(folder, entries)


def read_masks(folder: Path) -> pa.Table:
    """All rows of MASKS of a split, by image id."""
    return pa.concat_tables(read_shard(folder, index)[0] for index in shard_indices(folder))


def read_candidates(folder: Path) -> pa.Table:
    """All candidates of a split, by image id, label line, candidate index."""
    return pa.concat_tables(read_shard(folder, index)[1] for index in shard_indices(folder))
