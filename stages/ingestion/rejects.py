"""Findings: what of a data set was dropped, changed or ignored, how it is listed, and how much of it may be lost.

One share, `ingest.max_bad_share`, bounds every way to lose an image or a label. A lost label is the worst that can
happen: its defect becomes background. So rows count wherever they are lost: in a label file, with their image, or in a
label file without an image.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.common.files import write_csv
from stages.data.tables import REJECTS, write_table

SHOWN = 3
"""Examples in an error line; rejects.csv has all."""

WAYS_OUT = {
    "class": "`names` in data.yaml must name every class",
    "class_one_more": "`names` in data.yaml must name every class, and ids count from 0",
    "confidence": "ingest.confidence: 0 takes these rows, a higher number those from it on; the column is dropped",
    "polygon": "ingest.polygons: box takes the enclosing boxes, trust the polygons",
    "columns": "a row is `class cx cy w h`, or a class and the corners of a polygon",
    "not_a_number": "a row is `class cx cy w h`, separated by spaces, with decimal points",
    "out_of_bounds": "coordinates are shares of the image's sides, from 0 to 1",
    "orphan_labels": "give them the name of their image, or remove them",
    "orphan_masks": "give them the name of their image",
    "labels_elsewhere": "convert them to YOLO's rows, or move them where they are read",
    "unread_suffix": "convert them to JPEG or PNG",
}
"""Kind of finding to what a user can do about it."""


@dataclass(frozen=True)
class Reject:
    """One finding. `file` is relative to the data root, `line` counts from 1; findings are counted by `kind`.

    `action`: what was done, by which the census counts: "row dropped", "box clipped", "image dropped", "mask dropped",
    "mask kept", "file ignored", "image kept", "stage stopped" or "noted". `rows`: rows of labels that are lost by it.
    """

    file: str
    line: int | None
    kind: str
    reason: str
    action: str
    rows: int = 0


def write_rejects(folder: Path, rejects: list[Reject]) -> None:
    """Write rejects.parquet and the same as rejects.csv, sorted by file and line."""
    ordered = sorted(rejects, key=lambda reject: (reject.file, reject.line or 0, reject.reason))
    rows = [{name: getattr(reject, name) for name in REJECTS.names} for reject in ordered]
    write_table(folder / "rejects.parquet", REJECTS, rows)
    write_csv(folder / "rejects.csv", REJECTS.names, (row.values() for row in rows))


def losses(rejects: list[Reject], counts: Mapping[str, int], unusable_labels: list[Reject]) -> list[tuple]:
    """What is lost: (what, findings, number lost, number in all), for images, rows, label files and masks.

    `counts`: numbers of images, boxes, labelled images and masks (`with_truth`) that are used; `unusable_labels`: one
    finding for each label file all of whose rows are lost.
    """
    images = [reject for reject in rejects if reject.action == "image dropped"]
    rows = [reject for reject in rejects if reject.rows]
    orphaned = [reject for reject in rejects if reject.kind == "orphan_labels" or reject.action == "image dropped"]
    files = [*unusable_labels, *(reject for reject in orphaned if reject.rows)]
    masks = [reject for reject in rejects if reject.action == "mask dropped" or reject.kind == "orphan_masks"]
    lost = sum(reject.rows for reject in rows)
    read = counts["labelled"] - len(unusable_labels)
    return [
        ("images are unusable", images, len(images), len(images) + counts["images"]),
        ("label files are unusable", files, len(files), len(files) + read),
        ("label rows are lost", rows, lost, lost + counts["boxes"]),
        ("masks are unusable", masks, len(masks), len(masks) + counts["with_truth"]),
    ]


def cause(found: list[Reject], limit: str) -> str:
    """Why `found` are too many: the limit, an example of the largest cause, and the way out where there is one."""
    weights: Counter[str] = Counter()
    for reject in found:
        weights[reject.kind] += max(reject.rows, 1)
    largest = max(weights, key=lambda kind: (weights[kind], kind), default=None)
    way_out = f" ({WAYS_OUT[largest]})" if largest in WAYS_OUT else ""
    return f"({limit}): {examples([reject for reject in found if reject.kind == largest], 1)}{way_out}"


def examples(rejects: list[Reject], count: int = SHOWN) -> str:
    """The first `count` as `file:line: reason`."""
    places = (reject.file if reject.line is None else f"{reject.file}:{reject.line}" for reject in rejects[:count])
    shown = [f"{place}: {reject.reason}" for place, reject in zip(places, rejects, strict=False)]
    return "; ".join(shown) + (" …" if len(rejects) > count else "")
