"""Tables that count defects: detected ones and false positives, and what became of the SAM teacher's errors."""

from collections.abc import Mapping, Sequence

from stages.evaluation.defect_metrics import IOUS
from stages.reporting.corrections import KINDS
from stages.reporting.defect_findings import (
    SIZES_PX,
    TEACHER,
    UNITS,
    Defects,
    Group,
    by_class,
    by_size,
    false_positives_by_size,
    tally,
)
from stages.reporting.score_tables import NOT_SCORED, UNDEFINED, Body, Cell, Table, cell, score_cell

SUMMARY_TITLES = {
    "recall_defects_iou10": "recall, IoU 0.1",
    "recall_defects_iou50": "recall, IoU 0.5",
    "false_positives_per_image_iou10": "false positives, IoU 0.1",
    "false_positives_per_image_iou50": "false positives, IoU 0.5",
    "false_positives_per_image_no_overlap": "without overlap",
    "ap10": "AP10",
    "ap50": "AP50",
    "ap": "AP",
}
KIND_TITLES = {
    "recovered": "recovered, of its false negatives",
    "lost": "lost, of its true positives",
    "removed": "removed, of its false positives",
    "added": "added, of the run's own false positives",
}


def summary_table(caption: str, runs: Mapping[str, dict | None], teacher: Mapping[str, object]) -> Table:
    """A row for the teacher, whose regions have no scores to rank them by, and one per run."""
    everyone = {TEACHER: teacher} | {run: scores and scores["defects"] for run, scores in runs.items()}
    rows = [(who, [score_cell(own, key) for key in SUMMARY_TITLES]) for who, own in everyone.items()]
    return Table(caption, ["who", *SUMMARY_TITLES.values()], [Body(rows)])


def class_precision_table(caption: str, runs: Mapping[str, dict | None], names: Sequence[str]) -> Table:
    """AP50 of each class; a dash for a class that is absent from the truth."""
    rows = [
        (run, [cell(scores["defects"]["ap50_by_class"][name]) if scores else Cell(NOT_SCORED) for name in names])
        for run, scores in runs.items()
    ]
    return Table(caption, ["run", *names], [Body(rows)])


def recall_table(caption: str, defects: Defects, names: Sequence[str]) -> Table:
    """A row for the teacher and each run: the share detected of all defects, and by size and class, at both IoUs."""
    everything = Group("all", defects.class_ids >= 0)
    groups = [everything, *by_size(defects.areas_px), *by_class(defects, names)]

    def row(who: str) -> tuple[str, list[Cell]]:
        return who, [_both(*(tally(defects, who, group).share(iou) for iou in IOUS), "{:.1%}") for group in groups]

    numbers = Body([("defects", [Cell(str(group.members.sum())) for group in groups])])
    columns = ["who", *(group.title for group in groups)]
    return Table(caption, columns, [numbers, Body([row(who) for who in defects.ious])])


def false_positives_table(caption: str, defects: Defects) -> Table:
    """A row for the teacher and each run: false positives per image by their own size, at both IoUs."""

    def row(who: str) -> tuple[str, list[Cell]]:
        loose, strict = (false_positives_by_size(defects, who, iou) for iou in IOUS)
        pairs = [(sum(loose), sum(strict)), *zip(loose, strict, strict=True)]
        return who, [_both(*pair, "{:.2f}") for pair in pairs]

    columns = ["who", "all", *(title for title, _, _ in SIZES_PX)]
    return Table(caption, columns, [Body([row(who) for who in defects.ious])])


def corrections_table(caption: str, corrections: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> Table:
    """run -> unit -> kind -> its share and numbers (see corrections.py): a body per unit, a row per run."""

    def shown(kind: Mapping[str, float | None]) -> Cell:
        if kind["share"] is None:
            return Cell(UNDEFINED, "none")
        low, high = (f"{100 * kind[key]:.1f}" for key in ("low", "high"))
        # a mean over seeds need not be whole
        whole = f"{round(kind['whole'], 1):,.10g}"
        return Cell(f"{kind['share']:.1%}", f"[{low}, {high}] of {whole}")

    bodies = [
        Body([(run, [shown(own[unit][kind]) for kind in KINDS]) for run, own in corrections.items()], f"in {unit}")
        for unit in UNITS
    ]
    return Table(caption, ["run", *(KIND_TITLES[kind] for kind in KINDS)], bodies)


def _both(loose: float | None, strict: float | None, form: str) -> Cell:
    """The value at the smaller IoU, below it that at the larger."""
    if loose is None or strict is None:
        return Cell(UNDEFINED)
    return Cell(form.format(loose), f"{form.format(strict)} at IoU {IOUS[1]:g}")
