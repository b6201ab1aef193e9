"""The tables of the train split, mapped from disk: memory holds only rows that are in use, however many there are.

Parquet can only be read in groups of rows, so the shards are copied once into Arrow files in the work folder, which are
mapped into memory; all trainings on the same masks share these files.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.common.workdir import files_fingerprint, work_folder
from stages.masks.shards import CANDIDATES, MASKS, read_shard, shard_indices


def mapped_tables(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Masks and candidates of all shards below `folder`. Raises UserError like `read_shard`."""
    key = files_fingerprint([folder])
    paths = [work_folder() / "training" / f"{key}-{name}.arrow" for name in ("masks", "candidates")]
    if not all(path.is_file() for path in paths):
        with (
            new_file(paths[0]) as masks,
            new_file(paths[1]) as candidates,
            pa.ipc.new_file(str(masks), MASKS) as mask_writer,
            pa.ipc.new_file(str(candidates), CANDIDATES) as candidate_writer,
        ):
            for index in shard_indices(folder):
                for writer, table in zip((mask_writer, candidate_writer), read_shard(folder, index), strict=True):
                    writer.write_table(table)
    for path in paths:
        os.utime(path)  # for stages.cache, which removes what was not used for long
    masks, candidates = (pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths)
    return masks, candidates


class Rows(Sequence[dict]):
    """Rows of a table by number, each as a dictionary of `columns`, made on access. Chunks are never joined, because a
    joined column can hold no more than 2 GiB.
    """

    def __init__(self, table: pa.Table, columns: Sequence[str]) -> None:
        self.table = table.select(list(columns))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict:
        return self.between(index, index + 1)[0]

    def between(self, start: int, stop: int) -> list[dict]:
        """Rows `start` to `stop`, without row `stop`."""
        return self.table.slice(start, stop - start).to_pylist()


class CandidatesByImage:
    """Rows of the candidates table, with `columns`, by the number of their image in the masks table.

    Raises UserError if the rows are not in the order of the images.
    """

    def __init__(self, masks: pa.Table, candidates: pa.Table, columns: Sequence[str]) -> None:
        self.rows = Rows(candidates, columns)
        self.first = np.searchsorted(image_of(masks, candidates), np.arange(len(masks) + 1))

    def of(self, image: int) -> list[dict]:
        return self.rows.between(int(self.first[image]), int(self.first[image + 1]))


def image_of(masks: pa.Table, candidates: pa.Table) -> np.ndarray:
    """(N,) int64: number of each candidate's image in the masks table. Raises UserError if they are not ascending."""
    found = pc.index_in(candidates["image_id"], value_set=masks["image_id"])
    numbers = found.fill_null(-1).to_numpy().astype(np.int64)
    if (numbers < 0).any() or (np.diff(numbers) < 0).any():
        raise UserError("the candidates of the train split are not in the order of its images; rasterize again")
    return numbers


def first_of_boxes(candidates: pa.Table) -> np.ndarray:
    """(N,) bool: whether the row is the first of its box."""
    ids = candidates["box_id"]
    return np.append(np.ones(len(ids[:1]), bool), pc.not_equal(ids[1:], ids[:-1]).to_numpy())
