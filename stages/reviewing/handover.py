"""The chosen images with their pseudo-masks, in the layout of an annotation tool."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath

from stages.common.files import write_csv
from stages.data.images import image_bytes, probe_image
from stages.data.tables import Dataset, decode_label_map, encode_label_map
from stages.formats import yolo
from stages.formats.coco import coco
from stages.formats.correction import FOLDERS, UNKNOWN
from stages.formats.cvat import cvat, label_settings
from stages.formats.inputs import Source, file_in, named
from stages.formats.label_studio import label_studio
from stages.formats.regions import Labelled, Region, parts
from stages.ingestion.duplicates import perceptual_hash
from stages.reviewing.ranking import Entry, Ranked

TABLE = ("rank", "file", "path", "sha256", "split", "boxes", "wrong_px", "near_duplicate_of", "reasons")


class Tool(StrEnum):
    """What the corrections are made with; docs/trusted.md describes the files."""

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

    def about(self) -> dict[str, str | int]:
        """Columns that Label Studio's list of tasks can be sorted by."""
        return super().about() | {"rank": self.rank, "reasons": self.reasons}


def hash_of(source: Dataset, entry: Entry) -> bytes | None:
    """Perceptual hash of an image; None for one without detail."""
    return perceptual_hash(probe_image(image_bytes(source, entry._asdict()), source.white_level).thumbnail)


def reviewed(
    rows: Iterable[Mapping], chosen: Sequence[Ranked], sources: Mapping[str, Source], source: Dataset, images: Path
) -> Iterator[Reviewed]:
    """Those of `rows`, of the masks table, that are `chosen`, in their order. Each image is copied into `images`."""
    by_path = {one.entry.path: (rank, one.entry) for rank, one in enumerate(chosen, start=1)}
    for row in rows:
        if row["path"] in by_path:
            (rank, entry), (_, file, name) = by_path[row["path"]], sources[row["path"]]
            _write(images / file, [image_bytes(source, row)])
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
    """By path: the name of each image below `images/`, without folders called so itself where that is unambiguous."""
    short = {path: "/".join(part for part in PurePosixPath(path).parts if part not in FOLDERS) for path in paths}
    count = Counter(short.values())
    files = {path if count[file] > 1 else file: path for path, file in short.items()}
    return {files[one.file]: one for one in named({file: Path(path) for file, path in files.items()})}


def write_for(tool: Tool, records: Iterable[Reviewed], names: list[str], out: Path, folder: str) -> int:
    """Write the files of `tool` into `out`, in memory that does not grow with the masks.

    `folder`: what `out` will be called. Returns the number of regions whose holes the format cannot hold.
    """
    labels = names if UNKNOWN in names else [*names, UNKNOWN]
    if tool is Tool.masks:
        for record in records:
            _write(file_in(out / "masks", record.name), [encode_label_map(record.labels())])
        return 0
    if tool is Tool.yolo:
        filled = 0
        for record in records:
            _write(file_in(out / "labels", record.name), [yolo.lines(record).encode()])
            filled += sum(region.holes > 0 for region in record.defects)
        _write(out / "data.yaml", [yolo.data_yaml(labels)])
        return filled
    if tool is Tool.coco:
        files = {"coco.json": coco(records, labels)}
    elif tool is Tool.label_studio:
        files = label_studio(records, labels, f"{folder}/images")
    else:
        settings = json.dumps(label_settings(labels), ensure_ascii=False).encode()
        files = {"cvat.xml": cvat(records, labels), "cvat_labels.json": [settings]}
    for name, chunks in files.items():
        _write(out / name, chunks)
    return 0


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(chunks)
