"""The tables that count in defects: found ones and false alarms, and what became of the teacher's errors."""

from collections.abc import Mapping, Sequence

from stages.evaluation.defect_metrics import FALSE_POSITIVES, IOUS, RECALLS
from stages.reporting.corrections import KINDS
from stages.reporting.defects import SIZES_PX, TEACHER, UNITS, Defects, Group, alarms_by_size, by_class, by_size, tally
from stages.reporting.table import NOT_SCORED, UNDEFINED, Body, Cell, Table, cell, figure

LOOSE, STRICT = (f"IoU {iou:g}" for iou in IOUS)
SUMMARY_TITLES = {
    **dict(zip(RECALLS, (f"found, {LOOSE}", f"found, {STRICT}"), strict=True)),
    **dict(
        zip(FALSE_POSITIVES, (f"false alarms, {LOOSE}", f"false alarms, {STRICT}", "touching no defect"), strict=True)
    ),
    "ap10": "AP10",
    "ap50": "AP50",
    "ap": "AP",
}
KIND_TITLES = {
    "rescued": "rescued, of its misses",
    "lost": "lost, of its hits",
    "dropped": "dropped, of its inventions",
    "added": "added, of the run's own inventions",
}


def summary_table(caption: str, runs: Mapping[str, dict | None], teacher: Mapping[str, object]) -> Table:
    """A row for the teacher, which gives no scores to rank its regions by, and one a run."""
    rows = [(TEACHER, [figure(teacher, key) for key in SUMMARY_TITLES])]
    for run, scores in runs.items():
        own = scores and scores["defects"]
        rows.append((run, [figure(own, key) if own else Cell(NOT_SCORED) for key in SUMMARY_TITLES]))
    return Table(caption, ["who", *SUMMARY_TITLES.values()], [Body(rows)])


def class_precision_table(caption: str, runs: Mapping[str, dict | None], names: Sequence[str]) -> Table:
    """AP50 of each class; a dash for one that the truth never shows."""
    rows = [
        (run, [cell(scores["defects"]["ap50_by_class"][name]) if scores else Cell(NOT_SCORED) for name in names])
        for run, scores in runs.items()
    ]
    return Table(caption, ["run", *names], [Body(rows)])


def found_table(caption: str, defects: Defects, names: Sequence[str]) -> Table:
    """A row for the teacher and each run: the share found of all defects, and by size and class, at both IoUs."""
    everything = Group("all", defects.class_ids >= 0)
    groups = [everything, *by_size(defects.areas_px), *by_class(defects, names)]

    def row(who: str) -> tuple[str, list[Cell]]:
        return who, [_both(*(tally(defects, who, group).share(iou) for iou in IOUS), "{:.1%}") for group in groups]

    numbers = Body([("defects", [Cell(str(group.members.sum())) for group in groups])])
    columns = ["who", *(group.title for group in groups)]
    return Table(caption, columns, [numbers, Body([row(who) for who in _everyone(defects)])])


def alarms_table(caption: str, defects: Defects) -> Table:
    """A row for the teacher and each run: false alarms an image by their own size, at both IoUs."""

    def row(who: str) -> tuple[str, list[Cell]]:
        loose, strict = (alarms_by_size(defects, who, iou) for iou in IOUS)
        pairs = [(sum(loose), sum(strict)), *zip(loose, strict, strict=True)]
        return who, [_both(*pair, "{:.2f}") for pair in pairs]

    columns = ["who", "all", *(title for title, _, _ in SIZES_PX)]
    return Table(caption, columns, [Body([row(who) for who in _everyone(defects)])])


def corrections_table(caption: str, corrections: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> Table:
    """run -> unit -> kind -> its share and numbers (see scoring/corrections.py): a body a unit, a row a run."""

    def shown(figures: Mapping[str, float | None]) -> Cell:
        if figures["share"] is None:
            return Cell(UNDEFINED, "none")
        low, high = (f"{100 * figures[key]:.1f}" for key in ("low", "high"))
        # a mean over seeds need not be whole
        whole = f"{round(figures['whole'], 1):,.10g}"
        return Cell(f"{figures['share']:.1%}", f"[{low}, {high}] of {whole}")

    bodies = [
        Body([(run, [shown(own[unit][kind]) for kind in KINDS]) for run, own in corrections.items()], f"in {unit}")
        for unit in UNITS
    ]
    return Table(caption, ["run", *(KIND_TITLES[kind] for kind in KINDS)], bodies)


def _everyone(defects: Defects) -> list[str]:
    return [TEACHER, *(who for who in defects.ious if who != TEACHER)]


def _both(loose: float | None, strict: float | None, form: str) -> Cell:
    """The figure at the smaller IoU, below it that at the larger."""
    if loose is None or strict is None:
        return Cell(UNDEFINED)
    return Cell(form.format(loose), f"{form.format(strict)} at {STRICT}")
