"""Defects of a split: which of them the SAM teacher and every run detect, and their false positives.

The rules are those of evaluation/matching.py, evaluation/defect_metrics.py and corrections.py; here they are applied
to the teacher and all runs, and the outcomes are grouped by size and class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.components import regions
from stages.evaluation.defect_metrics import IOUS, Outcome, counts_of, outcome
from stages.evaluation.matching import overlaps
from stages.reporting.aligned_maps import AlignedMaps
from stages.reporting.corrections import corrected_defects, corrected_pixels, summarise_corrections

SIZES_PX = (("under 100 px", 0, 99), ("100 to 1,000 px", 100, 1000), ("over 1,000 px", 1001, np.inf))
"""Groups by size: title, smallest and largest area."""
TEACHER = "SAM teacher"
"""Counted like the runs; none has this name, because a run's name has no space."""
UNITS = ("pixels", *(f"defects, IoU {iou:g}" for iou in IOUS))
"""What the teacher's errors are counted in."""


@dataclass(frozen=True)
class Defects:
    """D true defects over N = `images` images. `class_ids`, `areas_px`: (D,).

    `who` is TEACHER, which comes first, or a run. `ious`: who -> (S, D), of each defect with its match, 0 where it has
    none, one row per training seed (one for the teacher). `predicted`: who -> S arrays (2, P) of the P regions that it
    predicts: areas in pixels, and IoUs with their matches. `teacher_counts`: (N, 1, 6), see `counts_of`. `corrected`:
    run -> (N, S, len(UNITS), 4, 2), see corrections.py.
    """

    images: int
    class_ids: np.ndarray
    areas_px: np.ndarray
    ious: dict[str, np.ndarray]
    predicted: dict[str, list[np.ndarray]]
    teacher_counts: np.ndarray
    corrected: dict[str, np.ndarray]


class Group(NamedTuple):
    """Some of the defects: a title, and which they are, (D,) bool."""

    title: str
    members: np.ndarray


class Tally(NamedTuple):
    """Number of defects of a group over all seeds: detected (at the larger of IOUS), partially (only at the smaller),
    and undetected."""

    detected: int
    partial: int
    undetected: int

    @property
    def total(self) -> int:
        return sum(self)

    def share(self, iou: float) -> float | None:
        """Share of those detected at `iou`, one of IOUS; None where there is no defect."""
        hits = self.detected if iou == IOUS[1] else self.detected + self.partial
        return hits / self.total if self.total else None


def gather(images: Iterable[AlignedMaps], runs: Sequence[str], seeds: int) -> Defects | None:
    """Outcomes over all `images`, one after another; None where there are none."""
    classes: list[np.ndarray] = []
    areas: list[np.ndarray] = []
    matched: dict[str, list[list]] = {TEACHER: [[]]} | {run: [[] for _ in range(seeds)] for run in runs}
    teacher_counts: list[list[np.ndarray]] = []
    corrected: dict[str, list[list[np.ndarray]]] = {run: [] for run in runs}
    for image in images:
        true = regions(image.truth)
        classes.append(true.class_ids)
        areas.append(true.areas_px)
        teacher = outcome(image.truth, image.teacher, true)
        matched[TEACHER][0].append(_matched(teacher))
        teacher_counts.append([counts_of(teacher)])
        for run, maps in image.students.items():
            own = [outcome(image.truth, labels, true) for labels in maps]
            corrected[run].append(
                [_corrected(image, teacher, labels, student) for labels, student in zip(maps, own, strict=True)]
            )
            for seed, student in enumerate(own):
                matched[run][seed].append(_matched(student))
    if not areas:
        return None
    return Defects(
        images=len(areas),
        class_ids=np.concatenate(classes),
        areas_px=np.concatenate(areas),
        ious={
            who: np.stack([np.concatenate([true for true, _ in seed]) for seed in own]) for who, own in matched.items()
        },
        predicted={
            who: [np.concatenate([own for _, own in seed], axis=1) for seed in each] for who, each in matched.items()
        },
        teacher_counts=np.array(teacher_counts),
        corrected={run: np.array(own) for run, own in corrected.items()},
    )


def by_size(areas_px: np.ndarray) -> list[Group]:
    """All groups of SIZES_PX, empty ones included."""
    return [Group(title, (areas_px >= least) & (areas_px <= most)) for title, least, most in SIZES_PX]


def by_class(defects: Defects, names: Sequence[str]) -> list[Group]:
    """A group per class, empty ones included."""
    return [Group(name, defects.class_ids == number) for number, name in enumerate(names)]


def tally(defects: Defects, who: str, group: Group) -> Tally:
    """How many of a group `who` detects."""
    ious = defects.ious[who][:, group.members]
    strict, loose = int((ious >= IOUS[1]).sum()), int((ious >= IOUS[0]).sum())
    return Tally(strict, loose - strict, ious.size - loose)


def false_positives_by_size(defects: Defects, who: str, iou: float) -> list[float]:
    """False positives per image at `iou`, mean over seeds, in each of SIZES_PX by their own area."""
    seeds = defects.predicted[who]
    false = np.concatenate([areas_px[ious < iou] for areas_px, ious in seeds])
    return [float(group.members.sum() / len(seeds) / defects.images) for group in by_size(false)]


def corrections_of(defects: Defects, bootstrap: BootstrapParams) -> dict[str, dict[str, dict]]:
    """What each run made of the teacher's errors: run -> unit -> kind -> `summarise_corrections`."""
    return {
        run: {unit: summarise_corrections(counts[:, :, place], bootstrap) for place, unit in enumerate(UNITS)}
        for run, counts in defects.corrected.items()
    }


def _matched(found: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Of one image, what `Defects` holds of all: (D,) of `ious`, and (2, P) of `predicted`."""
    return found.true_iou, np.stack([found.predicted.areas_px, found.predicted_iou])


def _corrected(image: AlignedMaps, teacher: Outcome, labels: np.ndarray, student: Outcome) -> np.ndarray:
    """(len(UNITS), 4, 2)."""
    shared = overlaps(teacher.predicted, student.predicted)
    in_defects = [corrected_defects(teacher, student, shared, iou) for iou in IOUS]
    return np.stack([corrected_pixels(image.truth, image.teacher, labels), *in_defects])
