"""Defect by defect, over a split: what became of each true defect, what was invented, and what of it was the teacher's.

The rules are those of scoring/matching.py, scoring/defects.py and scoring/corrections.py; here they are applied to the
teacher and all runs side by side, and the outcomes are grouped by size and class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.components import regions
from stages.evaluation.defect_metrics import IOUS, Outcome, counts_of, outcome
from stages.evaluation.matching import overlaps
from stages.reporting.corrections import corrected_defects, corrected_pixels, summarise_corrections
from stages.reporting.scenes import Scene

SIZES_PX = (("under 100 px", 0, 99), ("100 to 1,000 px", 100, 1000), ("over 1,000 px", 1001, np.inf))
"""Groups by size: what they are called, and the least and the largest area of each."""
TEACHER = "the teacher"
"""Who else is measured; with a space in it, as no run's name has."""
UNITS = ("pixels", *(f"defects, IoU {iou:g}" for iou in IOUS))
"""What the teacher's errors are counted in."""


class Predicted(NamedTuple):
    """All P regions that one training, or the teacher, predicts. `areas_px`: (P,); `ious`: (P,) with the true defect
    that each is paired with, 0 where there is none."""

    areas_px: np.ndarray
    ious: np.ndarray


@dataclass(frozen=True)
class Defects:
    """D true defects over N = `images` images. `class_ids`, `areas_px`: (D,).

    `ious`: who -> (S, D), of each defect with the predicted region it is paired with, 0 where there is none, a row a
    training seed (the teacher has one). `predicted`: who -> S times all that it predicts. `teacher_counts`: (N, 1, 6),
    see `counts_of`. `corrected`: run -> (N, S, len(UNITS), 4, 2), see scoring/corrections.py.
    """

    images: int
    class_ids: np.ndarray
    areas_px: np.ndarray
    ious: dict[str, np.ndarray]
    predicted: dict[str, list[Predicted]]
    teacher_counts: np.ndarray
    corrected: dict[str, np.ndarray]


class Group(NamedTuple):
    """Some of the defects: what they have in common, and which they are, (D,) bool."""

    title: str
    members: np.ndarray


class Tally(NamedTuple):
    """How many defects of a group were found (the larger IoU of IOUS), found in part (the smaller one), and missed,
    over all seeds."""

    found: int
    partly: int
    missed: int

    @property
    def total(self) -> int:
        return sum(self)

    def share(self, iou: float) -> float | None:
        """Of those found at `iou`, one of IOUS; None where there is no defect."""
        hits = self.found if iou == IOUS[1] else self.found + self.partly
        return hits / self.total if self.total else None


def gather(scenes: Iterable[Scene], runs: Sequence[str], seeds: int) -> Defects | None:
    """Outcomes over all `scenes`, one after another; None where there are none."""
    classes: list[np.ndarray] = []
    areas: list[np.ndarray] = []
    outcomes: dict[str, list[list[_Slim]]] = {who: [[] for _ in range(seeds)] for who in runs} | {TEACHER: [[]]}
    corrected: dict[str, list[list[np.ndarray]]] = {run: [] for run in runs}
    for scene in scenes:
        true = regions(scene.truth)
        classes.append(true.class_ids)
        areas.append(true.areas_px)
        teacher = outcome(scene.truth, scene.teacher, true)
        outcomes[TEACHER][0].append(_slim(teacher))
        for run, maps in scene.students.items():
            own = [outcome(scene.truth, labels, true) for labels in maps]
            corrected[run].append(
                [_corrected(scene, teacher, labels, student) for labels, student in zip(maps, own, strict=True)]
            )
            for seed, student in enumerate(own):
                outcomes[run][seed].append(_slim(student))
    if not areas:
        return None
    return Defects(
        images=len(areas),
        class_ids=np.concatenate(classes),
        areas_px=np.concatenate(areas),
        ious={
            who: np.stack([np.concatenate([one.true_iou for one in seed]) for seed in own])
            for who, own in outcomes.items()
        },
        predicted={who: [_all_predicted(seed) for seed in own] for who, own in outcomes.items()},
        teacher_counts=np.stack([[one.counts] for one in outcomes[TEACHER][0]]),
        corrected={run: np.array(own) for run, own in corrected.items()},
    )


def by_size(areas_px: np.ndarray) -> list[Group]:
    """All groups of SIZES_PX, also those that nothing is in."""
    return [Group(title, (areas_px >= least) & (areas_px <= most)) for title, least, most in SIZES_PX]


def by_class(defects: Defects, names: Sequence[str]) -> list[Group]:
    """A group for each class, also for those that the truth never shows."""
    return [Group(name, defects.class_ids == number) for number, name in enumerate(names)]


def tally(defects: Defects, who: str, group: Group) -> Tally:
    """How `who` did on a group."""
    ious = defects.ious[who][:, group.members]
    found, near = int((ious >= IOUS[1]).sum()), int((ious >= IOUS[0]).sum())
    return Tally(found, near - found, ious.size - near)


def alarms_by_size(defects: Defects, who: str, iou: float) -> list[float]:
    """False alarms per image at `iou`, mean over seeds, in each of SIZES_PX by their own area."""
    seeds = defects.predicted[who]
    false = np.concatenate([one.areas_px[one.ious < iou] for one in seeds])
    return [float(group.members.sum() / len(seeds) / defects.images) for group in by_size(false)]


def corrections_of(defects: Defects, bootstrap: BootstrapParams) -> dict[str, dict[str, dict]]:
    """What each run made of the teacher's errors: run -> unit -> kind -> its figures with their interval."""
    return {
        run: {unit: summarise_corrections(counts[:, :, place], bootstrap) for place, unit in enumerate(UNITS)}
        for run, counts in defects.corrected.items()
    }


class _Slim(NamedTuple):
    """What is kept of an outcome: no maps."""

    true_iou: np.ndarray
    areas_px: np.ndarray
    predicted_iou: np.ndarray
    counts: np.ndarray


def _slim(found: Outcome) -> _Slim:
    return _Slim(found.true_iou, found.predicted.areas_px, found.predicted_iou, counts_of(found))


def _all_predicted(outcomes: Sequence[_Slim]) -> Predicted:
    return Predicted(
        np.concatenate([one.areas_px for one in outcomes]), np.concatenate([one.predicted_iou for one in outcomes])
    )


def _corrected(scene: Scene, teacher: Outcome, labels: np.ndarray, student: Outcome) -> np.ndarray:
    """(len(UNITS), 4, 2)."""
    shared = overlaps(teacher.predicted, student.predicted)
    in_defects = [corrected_defects(teacher, student, shared, iou) for iou in IOUS]
    return np.stack([corrected_pixels(scene.truth, scene.teacher, labels), *in_defects])
