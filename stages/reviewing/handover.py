"""The chosen images with their pseudo-masks, in the layout of an annotation tool; and what was handed over so."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path, PurePosixPath

from stages.common.files import write_csv, write_parts
from stages.data.images import image_bytes, probe_image
from stages.data.tables import Dataset, decode_label_map, encode_label_map, stream_rows
from stages.formats import yolo
from stages.formats.correction import FOLDERS, UNKNOWN
from stages.formats.cvat import label_settings
from stages.formats.inputs import Source, file_in, named
from stages.formats.regions import Labelled, Region, parts
from stages.formats.writers import collections
from stages.ingestion.duplicates import perceptual_hash
from stages.masks.shards import LABEL_MAPS, MASKS, shard_indices, shard_path
from stages.reviewing.ranking import Entry, Ranked

TABLE = ("rank", "file", "path", "sha256", "split", "boxes", "wrong_px", "near_duplicate_of", "reasons")


class Tool(StrEnum):
    """Tool or format that the corrections are made with; docs/trusted.md describes the files."""

    cvat = "cvat"
    label_studio = "label_studio"
    coco = "coco"
    yolo = "yolo"
    masks = "masks"


class Reviewed(Labelled):
    """An image of the list with its pseudo-mask. `name`: of its own files; `rank`: from 1 on."""

    name: str
    rank: int
    reasons: str


def hash_of(source: Dataset, entry: Entry) -> bytes | None:
    """Perceptual hash of an image; None for one without detail."""
    return perceptual_hash(probe_image(image_bytes(source, entry._asdict()), source.white_level).thumbnail)


def reviewed(
    rows: Iterable[Mapping], chosen: Sequence[Ranked], sources: Mapping[str, Source], source: Dataset, images: Path
) -> Iterator[Reviewed]:
    """The `chosen` images, in the order of `rows` of the masks table. Each is copied into the folder `images`."""
    by_path = {one.entry.path: (rank, one.entry) for rank, one in enumerate(chosen, start=1)}
    for row in rows:
        if row["path"] in by_path:
            (rank, entry), (_, file, name) = by_path[row["path"]], sources[row["path"]]
            write_parts(images / file, [image_bytes(source, row)])
            labels = decode_label_map(row["label_map"]["bytes"])
            yield Reviewed(
                file=file,
                sha256=entry.sha256,
                model="SAM",
                size_hw=labels.shape,
                defects=tuple(Region(**about) for about, _, _ in parts(labels)),
                name=name,
                rank=rank,
                reasons=entry.reasons,
            )


def write_table(path: Path, chosen: Sequence[Ranked], sources: Mapping[str, Source]) -> None:
    """CSV of the list: one row per image, the one most worth checking first."""
    rows = [
        (rank, sources[one.path].file, one.path, one.sha256, one.split, one.boxes, round(one.score), twin, one.reasons)
        for rank, (one, twin) in enumerate(chosen, start=1)
    ]
    write_csv(path, TABLE, rows)


def sources_of(paths: Sequence[str]) -> dict[str, Source]:
    """Path -> name of the image below `images/`; folders of FOLDERS are left out of it where it stays unique."""
    short = {path: "/".join(part for part in PurePosixPath(path).parts if part not in FOLDERS) for path in paths}
    count = Counter(short.values())
    files = {path if count[file] > 1 else file: path for path, file in short.items()}
    return {files[one.file]: one for one in named({file: Path(path) for file, path in files.items()})}


def write_for(tool: Tool, records: Iterable[Reviewed], names: list[str], out: Path, folder: str) -> int:
    """Write the files of `tool` into `out`, in memory that does not grow with the masks.

    `folder`: what `out` will be called. Returns the number of regions whose holes the format cannot hold.
    """
    labels, filled = names if UNKNOWN in names else [*names, UNKNOWN], 0
    if tool is Tool.masks:
        for record in records:
            write_parts(file_in(out / "masks", record.name), [encode_label_map(record.labels())])
    if tool is Tool.yolo:
        for record in records:
            write_parts(file_in(out / "labels", record.name), [yolo.lines(record).encode()])
            filled += sum(region.holes > 0 for region in record.defects)
    if tool is Tool.cvat:
        write_parts(out / "cvat_labels.json", [json.dumps(label_settings(labels), ensure_ascii=False).encode()])
    for name, chunks in collections(tool, records, labels, f"{folder}/images").items():
        write_parts(out / name, chunks)
    return filled


def exported(masks: Path) -> Callable[[str], bytes | None]:
    """A function from the path of an image of train or val to its pseudo-mask as PNG, or None where it has none.

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
