"""Splits by group: all images of one blade, flight or tile go into one split, which prevents leakage between splits.

The split of a group depends on its name and the seed only, so that a growing data set keeps its test images.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from stages.common.errors import UserError
from stages.data.tables import SPLITS
from stages.ingestion.config import SplitParams
from stages.ingestion.counterparts import image_id
from stages.ingestion.layout import ImageFile, Layout, with_problems


class Group(NamedTuple):
    """Images that belong together: the group's name, the split that has them all, and their number."""

    name: str
    split: str
    images: int


def split_by_group(layout: Layout, params: SplitParams) -> tuple[Layout, list[Group]]:
    """Make the splits that `layout` lacks out of its train; returns the new layout and all groups, sorted by name.

    Splits of data.yaml stay; images of train whose group is in one of them join it. A val or test that lists the same
    images as train counts as absent, because Ultralytics requires the key. Raises UserError.
    """
    where = f"ingest.split.group = {params.group!r}"
    pool = layout.splits["train"]
    paths = {image.path for image in pool}
    fixed = {split: images for split, images in layout.splits.items() if images and split != "train"}
    fixed = {split: images for split, images in fixed.items() if {image.path for image in images} != paths}
    wanted = {split: getattr(params, split) for split in ("val", "test") if split not in fixed}
    if not any(wanted.values()):
        raise UserError(f"{where}: data.yaml already has val and test; allowed is null, or a data.yaml that lacks one")
    group_of = _grouper(params.group, where)
    split_of = {group_of(image.path): split for split, images in fixed.items() for image in images}
    placed: dict[str, dict[str, ImageFile]] = {split: {} for split in SPLITS}
    for images in [*fixed.values(), pool]:
        for image in images:
            name = group_of(image.path)
            split = split_of.setdefault(name, _drawn(name, wanted, params.seed))
            placed[split][image.path] = replace(image, split=split, image_id=image_id(split, image.path))
    made = {**wanted, "train": 1.0}
    if empty := [split for split in SPLITS if made.get(split) and not placed[split]]:
        raise UserError(
            f"{where}: none of the {len(split_of)} groups falls into {empty[0]}; "
            f"allowed is another ingest.split.seed than {params.seed}, other shares, or a pattern with more groups"
        )
    splits = with_problems({split: [*images.values()] for split, images in placed.items()})
    counts = Counter(group_of(path) for images in placed.values() for path in images)
    return replace(layout, splits=splits), [Group(name, split_of[name], counts[name]) for name in sorted(split_of)]


def _grouper(pattern: str, where: str) -> Callable[[str], str]:
    expression = re.compile(pattern)

    def group_of(path: str) -> str:
        found = expression.search(path)
        if found is None:
            raise UserError(f"{where}: is not found in {path}; it must be found in the path of every image")
        return "/".join(part or "" for part in found.groups()) if expression.groups else found.group()

    return group_of


def _drawn(name: str, wanted: dict[str, float], seed: int) -> str:
    """The split of a group: its name and the seed give a number in [0, 1); the lowest go to test, the next to val."""
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64
    for split in ("test", "val"):
        if draw < wanted.get(split, 0.0):
            return split
        draw -= wanted.get(split, 0.0)
    return "train"
