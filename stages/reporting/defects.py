"""Defect by defect: which connected regions of the truth were found, by whom, and what was invented."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stages.reporting.overlays import at_size
from stages.scoring.components import components, connected
from stages.scoring.confusion import IGNORE

FOUND = 0.5
"""A defect counts as found when at least this share of its pixels is predicted as a defect, of whatever class."""
SIZE_GROUPS = 4
"""Groups of (nearly) the same number of defects, by size."""
TEACHER = "the teacher"
"""Who else is measured; with a space in it, as no run's name has."""


@dataclass(frozen=True)
class Defects:
    """D regions of the truth over `images` photographs. `class_ids`, `areas_px`: (D,).

    `covered`: who -> (S, D), the share of each region's pixels predicted as a defect, a row a training seed (the
    teacher has one). `invented`: who -> S numbers of predicted regions that touch no truth.
    """

    images: int
    class_ids: np.ndarray
    areas_px: np.ndarray
    covered: dict[str, np.ndarray]
    invented: dict[str, list[int]]


class Group(NamedTuple):
    """Some of the defects: what they have in common, and which they are, (D,) bool."""

    title: str
    members: np.ndarray


class Tally(NamedTuple):
    """How many defects of a group were found, found in part, and missed, over all seeds."""

    found: int
    partly: int
    missed: int

    @property
    def total(self) -> int:
        return sum(self)


def gather(truths: Mapping[str, np.ndarray], predicted: Mapping[str, list[Mapping[str, np.ndarray]]]) -> Defects:
    """`truths`: image id -> (H, W) label map. `predicted`: who -> for each seed, image id -> label map of any size.

    Mappings may decode on access; one image's maps are held at a time.
    """
    class_ids: list[np.ndarray] = []
    areas: list[np.ndarray] = []
    covered: dict[str, list[list[np.ndarray]]] = {who: [[] for _ in seeds] for who, seeds in predicted.items()}
    invented = {who: [0] * len(seeds) for who, seeds in predicted.items()}
    for image_id, truth in truths.items():
        index, of_class = regions(truth)
        area = np.bincount(index.ravel(), minlength=len(of_class) + 1)[1:]
        class_ids.append(of_class)
        areas.append(area)
        for who, seeds in predicted.items():
            for seed, maps in enumerate(seeds):
                found = at_size(maps[image_id], truth.shape) > 0
                hits = np.bincount(index[found], minlength=len(of_class) + 1)[1:]
                covered[who][seed].append(hits / area)
                invented[who][seed] += false_alarms(truth, found)
    return Defects(
        images=len(truths),
        class_ids=_joined(class_ids).astype(np.int64),
        areas_px=_joined(areas).astype(np.int64),
        covered={who: np.stack([_joined(parts) for parts in seeds]) for who, seeds in covered.items()},
        invented=invented,
    )


def regions(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions of one class each: an (H, W) map of 1 to R, 0 elsewhere, and their (R,) class ids."""
    index, of_class = np.zeros(truth.shape, dtype=np.int32), []
    for class_id, own, count in components(truth):
        index[own > 0] = own[own > 0] + len(of_class)
        of_class += [class_id] * count
    return index, np.array(of_class, dtype=np.int64)


def false_alarms(truth: np.ndarray, found: np.ndarray) -> int:
    """Connected regions of `found`, (H, W) bool, that touch no true defect; what lies on ignored pixels is none."""
    own, _ = connected(found)
    touching = np.unique(own[(truth > 0) & (truth != IGNORE)])
    return len(np.setdiff1d(own[(truth == 0) & found], touching))


def by_size(defects: Defects) -> list[Group]:
    """Groups of about as many defects each, the smallest first; fewer where many are of one size."""
    areas = defects.areas_px
    if not len(areas):
        return []
    starts = np.unique(np.quantile(areas, np.linspace(0, 1, SIZE_GROUPS + 1)[:-1], method="higher"))
    groups = []
    for start, stop in zip(starts, [*starts[1:], np.inf], strict=True):
        members = (areas >= start) & (areas < stop)
        low, high = areas[members].min(), areas[members].max()
        groups.append(Group(f"{low:,} px" if low == high else f"{low:,}–{high:,} px", members))
    return groups


def by_class(defects: Defects, names: tuple[str, ...]) -> list[Group]:
    """A group for each class that the truth shows."""
    return [
        Group(name, defects.class_ids == number) for number, name in enumerate(names) if number in defects.class_ids
    ]


def tally(defects: Defects, who: str, group: Group) -> Tally:
    """How `who` did on a group."""
    shares = defects.covered[who][:, group.members]
    found, missed = int((shares >= FOUND).sum()), int((shares == 0).sum())
    return Tally(found, shares.size - found - missed, missed)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])
