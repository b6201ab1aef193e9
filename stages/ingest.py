"""Read an Ultralytics data set into tables; nothing of it is modified, and nothing bad passes unsaid.

    python -m stages.ingest --tables data/tables --truth data/truth --metrics metrics/ingest.json

Writes images and boxes a split, the list of rejects (Parquet and CSV), and the pixel truth apart from them, so that
only the stages that score depend on it.
"""

import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from stages.dataset.config import DataParams, IngestParams
from stages.dataset.layout import SUFFIXES, Layout, image_id, label_path, read_layout
from stages.dataset.read import Entry, read_entry
from stages.dataset.tables import BOXES, IMAGES, REJECTS, SPLITS, TRUTH, Dataset, write_dataset, write_table
from stages.shell.errors import UserError, run
from stages.shell.files import new_folder, write_json
from stages.shell.params import Section, load_params
from stages.shell.progress import progress


class Params(Section):
    data: DataParams
    ingest: IngestParams


def main(
    tables: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("data/tables"),
    truth: Annotated[Path, typer.Option(help="Folder for the pixel truth.")] = Path("data/truth"),
    metrics: Annotated[Path, typer.Option(help="JSON file for the counts.")] = Path("metrics/ingest.json"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any reject.")] = False,
) -> None:
    """Read the data set at data.root into tables."""
    values = load_params(Params, params)
    layout = read_layout(Path(values.data.root))
    entries = {split: read_split(layout, split) for split in SPLITS}
    rejects = [reject for split in SPLITS for entry in entries[split] for reject in entry.rejects] + orphans(layout)
    rejects.sort(key=lambda reject: (reject["file"], reject["line"] or 0))
    duplicates = cross_split_duplicates(entries)
    with new_folder(tables) as part, new_folder(truth) as truth_part:
        write_dataset(part / "dataset.json", Dataset(layout.root, layout.names))
        for split, found in entries.items():
            images = [entry.image for entry in found if entry.image]
            write_table(part / split / "images.parquet", IMAGES, sorted(images, key=lambda row: row["image_id"]))
            boxes = [box for entry in found for box in entry.boxes]
            write_table(
                part / split / "boxes.parquet", BOXES, sorted(boxes, key=lambda row: (row["image_id"], row["line"]))
            )
            masks = [entry.truth for entry in found if entry.truth]
            write_table(truth_part / f"{split}.parquet", TRUTH, sorted(masks, key=lambda row: row["image_id"]))
        write_table(part / "rejects.parquet", REJECTS, rejects)
        frame = pd.DataFrame(rejects, columns=REJECTS.names).astype({"line": "Int64"})
        frame.to_csv(part / "rejects.csv", index=False)
    write_json(metrics, summary(layout, entries, rejects, duplicates))
    refuse(values.ingest, entries, rejects, duplicates, strict, tables / "rejects.csv")


def read_split(layout: Layout, split: str) -> list[Entry]:
    """Every photograph of a split, in order; two photographs that share one id share a label file and are rejected."""
    photos = layout.splits[split] or []
    ids = Counter(image_id(split, photo) for photo in photos)
    found: list[Entry] = []
    with ThreadPoolExecutor() as pool:
        single = [photo for photo in photos if ids[image_id(split, photo)] == 1]
        reading = pool.map(lambda photo: read_entry(layout.root, split, photo, len(layout.names)), single)
        found += progress(reading, f"ingest {split}", "images", total=len(single))
    for photo in photos:
        if ids[image_id(split, photo)] > 1:
            reason = f"label file shared by {ids[image_id(split, photo)]} images: {label_path(photo)}"
            reject = {"file": photo, "line": None, "reason": reason, "action": "image ignored"}
            found.append(Entry(None, [], [reject], None, 0))
    return found


def orphans(layout: Layout) -> list[dict]:
    """Label files without a photograph, in the folders where the photographs' labels belong."""
    expected = {label_path(photo) for photos in layout.splits.values() for photo in photos or []}
    folders = sorted({str(Path(path).parent) for path in expected})
    files = {
        file.relative_to(layout.root).as_posix() for folder in folders for file in (layout.root / folder).glob("*.txt")
    }
    reason = "label file without an image"
    return [
        {"file": file, "line": None, "reason": reason, "action": "labels ignored"}
        for file in sorted(files - expected)
        if Path(file).name != "classes.txt"  # written by labelling tools beside the labels
    ]


def cross_split_duplicates(entries: dict[str, list[Entry]]) -> list[list[str]]:
    """Groups of paths with the very same bytes that lie in more than one split."""
    by_hash: dict[str, list[dict]] = defaultdict(list)
    for found in entries.values():
        for entry in found:
            if entry.image:
                by_hash[entry.image["sha256"]].append(entry.image)
    groups = [rows for rows in by_hash.values() if len({row["split"] for row in rows}) > 1]
    return sorted(sorted(row["path"] for row in rows) for rows in groups)


def summary(layout: Layout, entries: dict[str, list[Entry]], rejects: list[dict], duplicates: list[list[str]]) -> dict:
    """The counts of metrics/ingest.json."""
    splits = {split: counts(layout, entries[split]) for split in SPLITS if layout.splits[split] is not None}
    return {
        "classes": list(layout.names),
        **{split: splits.get(split) for split in SPLITS},
        "rejects": dict(sorted(Counter(kind_of(reject["reason"]) for reject in rejects).items())),
        "cross_split_duplicates": len(duplicates),
        "first_duplicates": duplicates[:3],
    }


def counts(layout: Layout, found: list[Entry]) -> dict:
    """One split in numbers."""
    images = [entry.image for entry in found if entry.image]
    status = Counter(image["label_status"] for image in images)
    classes = Counter(box["class_id"] for entry in found for box in entry.boxes)
    actions = Counter(reject["action"] for entry in found for reject in entry.rejects)
    return {
        "images": len(images),
        **{f"labels_{key}": status[key] for key in ("labelled", "empty", "missing")},
        "boxes": sum(classes.values()),
        "boxes_by_class": {name: classes[index] for index, name in enumerate(layout.names)},
        "clipped_boxes": sum(entry.clipped for entry in found),
        "rejected_rows": actions["row ignored"],
        "rejected_images": actions["image ignored"],
        "images_with_truth": sum(entry.truth is not None for entry in found),
    }


def kind_of(reason: str) -> str:
    """A reason without what is particular to one row, to count by."""
    return " ".join(re.sub(r"-?[0-9][^ ]*", "", reason.split(":")[0].split(",")[0]).split())


def refuse(
    values: IngestParams,
    entries: dict[str, list[Entry]],
    rejects: list[dict],
    duplicates: list[list[str]],
    strict: bool,
    listing: Path,
) -> None:
    """Raise UserError when the data set is not fit to be used; the tables and the list of rejects stay, to look at."""
    photos = sum(map(len, entries.values()))
    bad = sum(entry.image is None for found in entries.values() for entry in found)
    for split in ("train", "val"):
        if not entries[split]:
            raise UserError(f"data.root: not a single photograph in {split}; suffixes read are {', '.join(SUFFIXES)}")
    if bad > values.max_bad_share * photos:
        raise UserError(f"{bad} of {photos} images are bad, more than ingest.max_bad_share allows; see {listing}")
    if duplicates and values.duplicates == "error":
        pairs = "; ".join(" = ".join(group) for group in duplicates[:3])
        raise UserError(
            f"{len(duplicates)} images are in more than one split, so that scores would be wrong: {pairs}"
            " (ingest.duplicates: report lets them pass)"
        )
    if strict and rejects:
        first = rejects[0]
        raise UserError(
            f"--strict: {len(rejects)} rejects, the first in {first['file']}: {first['reason']}; see {listing}"
        )


if __name__ == "__main__":
    run(main)
