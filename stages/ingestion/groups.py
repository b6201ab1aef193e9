"""Splits made by group: all images of one blade, flight or tile go into one split, so that nothing leaks.

Which split a group falls into depends on its name and the seed alone: a data set that grows keeps its test images.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.data.tables import SPLITS
from stages.ingestion.config import SplitParams
from stages.ingestion.layout import Layout, Photo, image_id, with_problems


@dataclass(frozen=True)
class Group:
    """Images that belong together; `split` is where all of them are."""

    name: str
    split: str
    images: int


def split_by_group(layout: Layout, params: SplitParams) -> tuple[Layout, list[Group]]:
    """`layout` with the splits that it lacks made out of its train; and every group, sorted by name.

    Splits of data.yaml stay, and images of train whose group lies in one of them join it. A val or test that lists
    the very images of train, as Ultralytics makes people write, counts as none. Raises UserError.
    """
    where = f"ingest.split.group = {params.group!r}"
    pool = layout.splits["train"]
    paths = {photo.path for photo in pool}
    fixed = {split: photos for split, photos in layout.splits.items() if photos and split != "train"}
    fixed = {split: photos for split, photos in fixed.items() if {photo.path for photo in photos} != paths}
    wanted = {split: getattr(params, split) for split in ("val", "test") if split not in fixed}
    if not any(wanted.values()):
        raise UserError(f"{where}: data.yaml already has val and test; allowed is null, or a data.yaml that lacks one")
    group_of = _grouper(params.group, where)
    home = {group_of(photo.path): split for split, photos in fixed.items() for photo in photos}
    placed: dict[str, dict[str, Photo]] = {split: {} for split in SPLITS}
    for photos in [*fixed.values(), pool]:
        for photo in photos:
            name = group_of(photo.path)
            goal = home.setdefault(name, _drawn(name, wanted, params.seed))
            placed[goal][photo.path] = replace(photo, split=goal, image_id=image_id(goal, photo.path))
    made = {**wanted, "train": 1.0}
    if empty := [split for split in SPLITS if made.get(split) and not placed[split]]:
        raise UserError(
            f"{where}: none of the {len(home)} groups falls into {empty[0]}; "
            f"allowed is another ingest.split.seed than {params.seed}, other shares, or a pattern with more groups"
        )
    splits = {split: with_problems(photos.values()) if photos else None for split, photos in placed.items()}
    counts = Counter(group_of(path) for photos in placed.values() for path in photos)
    return replace(layout, splits=splits), [Group(name, home[name], counts[name]) for name in sorted(home)]


def write_groups(path: Path, groups: list[Group]) -> None:
    """Write group, split and number of images as CSV."""
    with new_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("group", "split", "images"))
        writer.writerows((group.name, group.split, group.images) for group in groups)


def _grouper(pattern: str, where: str) -> Callable[[str], str]:
    expression = re.compile(pattern)

    def group_of(path: str) -> str:
        found = expression.search(path)
        if found is None:
            raise UserError(f"{where}: is not found in {path}; it must be found in the path of every image")
        return "/".join(part or "" for part in found.groups()) if expression.groups else found.group()

    return group_of


def _drawn(name: str, wanted: dict[str, float], seed: int) -> str:
    """The split of a new group: a number in [0, 1) from its name and the seed, test below its share, then val."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
    for split in ("test", "val"):
        if draw < wanted.get(split, 0.0):
            return split
        draw -= wanted.get(split, 0.0)
    return "train"
