"""The pseudo-masks that were handed over, by the path of their image."""

from pathlib import Path

from stages.data.tables import stream_rows
from stages.masks.shards import LABEL_MAPS, MASKS, shard_indices, shard_path


class Exported:
    """Label maps of train and val as PNGs, those of one shard at a time in memory: exports keep the images' order."""

    def __init__(self, masks: Path) -> None:
        """`masks`: the folder of all splits. Raises UserError where one has no pseudo-masks."""
        files = [
            shard_path(masks / split, LABEL_MAPS, index)
            for split in ("train", "val")
            for index in shard_indices(masks / split)
        ]
        self._file_of = {row["path"]: file for file in files for row in stream_rows(file, MASKS, "rasterize", ["path"])}
        self._read: tuple[Path, dict[str, bytes]] | None = None

    def get(self, path: str) -> bytes | None:
        """None for an image that has none."""
        if (file := self._file_of.get(path)) is None:
            return None
        if self._read is None or self._read[0] != file:
            rows = stream_rows(file, MASKS, "rasterize", ["path", "label_map"])
            self._read = file, {row["path"]: row["label_map"]["bytes"] for row in rows}
        return self._read[1][path]
