"""The pseudo-masks that were handed over, by the path of their image."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from stages.data.tables import stream_rows
from stages.masks.shards import LABEL_MAPS, MASKS, shard_indices, shard_path


def exported(masks: Path) -> Callable[[str], bytes | None]:
    """A function from the path of an image of train or val to its label map as PNG, or None where it has none.

    It holds one shard in memory, which is enough because exports keep the images' order. `masks`: the folder of all
    splits. Raises UserError where one of the two splits has no pseudo-masks.
    """
    files = [
        shard_path(masks / split, LABEL_MAPS, index)
        for split in ("train", "val")
        for index in shard_indices(masks / split)
    ]
    file_of = {row["path"]: file for file in files for row in stream_rows(file, MASKS, "rasterize", ["path"])}

    @lru_cache(maxsize=1)
    def read(file: Path) -> dict[str, bytes]:
        rows = stream_rows(file, MASKS, "rasterize", ["path", "label_map"])
        return {row["path"]: row["label_map"]["bytes"] for row in rows}

    return lambda path: read(file_of[path])[path] if path in file_of else None
