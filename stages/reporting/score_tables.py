"""Scores as tables of text: rows of cells under headings, for the page to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stages.evaluation.summary import Difference
from stages.metrics.scores import HEADLINES, class_keys

TITLES = {
    "iou_bin": "IoU_bin",
    "recall_bin": "recall",
    "precision_bin": "precision",
    "miou_anom": "mIoU_anom",
    "f1_anom": "F1_anom",
    "miou": "mIoU",
}
UNDEFINED = "–"
NOT_SCORED = "not scored"

TREE_TITLES = {
    "boxes_without_truth": "boxes without a truth pixel of their class",
    "empty_masks": "boxes whose mask is empty",
    "images_with_truth": "images with truth",
    "not_scored": "not scored",
    "per_box": "Per box: its mask against the truth inside the box",
    "per_box_by_class": "Per box, of class",
    "pseudo_masks": "Whole pseudo-masks against truth",
    "filled_boxes": "All boxes filled, against truth",
    "masks_by_class": "Masks, with truth or without, of class",
    "no_candidate": "no candidate has a pixel in the box",
    "empty": "the chosen candidate has none",
    "low_probability": "the mask's mean probability is at most 0.5",
    "whole_box": "the mask fills the box",
    "off_centre": "the mask misses the box's centre line",
    "mask_iou": "mean IoU of the mask",
    "filled_box_iou": "mean IoU of the filled box",
    "best_candidate_iou": "mean IoU of the best candidate",
    "spearman_predicted_iou": "rank correlation of predicted and true IoU",
    **TITLES,
}
"""Keys of metrics/rasterize.json in words; other keys are shown as they are."""


class Cell(NamedTuple):
    """A value as text, its interval where it has one, and `better` or `worse` where it is compared with another."""

    text: str
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Body:
    """Rows that belong together, each a name and its cells."""

    rows: list[tuple[str, list[Cell]]]
    heading: str | None = None


@dataclass(frozen=True)
class Table:
    """`columns`: headings, that of the row names first."""

    caption: str
    columns: list[str]
    bodies: list[Body]


def headline_table(
    caption: str, runs: Mapping[str, dict | None], yardsticks: Mapping[str, Mapping[str, float | None]] | None = None
) -> Table:
    """A row per run with its six scores and their intervals; `yardsticks`: further rows.

    Scores of the other runs that differ from those of the first, as shown, are marked.
    """
    bodies = [_run_rows(runs, HEADLINES)]
    (_, first), *others = bodies[0].rows
    for _, cells in others:
        cells[:] = [_marked(own, reference) for own, reference in zip(cells, first, strict=True)]
    if yardsticks:
        bodies.append(Body(_run_rows(yardsticks, HEADLINES).rows, "For comparison"))
    return Table(caption, ["run", *(TITLES[key] for key in HEADLINES)], bodies)


def class_table(caption: str, runs: Mapping[str, dict | None], names: Sequence[str]) -> Table:
    """A row per run with the IoU of each defect class, and the mean of the images'."""
    columns = ["run", *(f"IoU {name}" for name in names), "mean IoU of images"]
    return Table(caption, columns, [_run_rows(runs, [*class_keys(names), "iou_image"])])


def published_table(caption: str, splits: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Table:
    """heading -> method -> score as text: a body per heading."""
    bodies = [
        Body([(name, [Cell(row.get(key, UNDEFINED)) for key in HEADLINES]) for name, row in rows.items()], heading)
        for heading, rows in splits.items()
    ]
    return Table(caption, ["method", *(TITLES[key] for key in HEADLINES)], bodies)


def difference_table(
    caption: str, differences: Mapping[str, Mapping[str, Difference]], keys: Sequence[str], level: float
) -> Table:
    """A row per run; below each difference its interval and adjusted p-value, starred below `level`."""

    def shown(difference: Difference) -> Cell:
        text, interval, _ = cell(difference.point, difference.low, difference.high, sign="+")
        if difference.adjusted is None:
            return Cell(text, interval)
        star = "*" if difference.adjusted < level else ""
        return Cell(f"{text}{star}", f"{interval} p = {difference.adjusted:.2g}")

    rows = [(run, [shown(values[key]) for key in keys]) for run, values in differences.items()]
    return Table(caption, ["run", *(TITLES[key] for key in keys)], [Body(rows)])


def tree_table(caption: str, splits: Mapping[str, Mapping]) -> Table:
    """Nested metrics, one column per split; an inner mapping is a body."""
    flat = {split: _flatten(values) for split, values in splits.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    bodies: dict[tuple[str, ...], Body] = {}
    for *parents, key in keys:
        group = tuple(parents)
        heading = " ".join(TREE_TITLES.get(part, part) for part in group) or None
        body = bodies.setdefault(group, Body([], heading))
        below = ({path[-1]: value for path, value in own.items() if path[:-1] == group} for own in flat.values())
        body.rows.append((TREE_TITLES.get(key, key), [cell(values.get(key)) for values in below]))
    return Table(caption, ["metric", *flat], list(bodies.values()))


def score_cell(scores: Mapping[str, object] | None, key: str) -> Cell:
    """`0.512` and `[0.447, 0.570]`; no interval where there is none, a dash where the score is undefined. `scores` of
    None: not scored."""
    if scores is None:
        return Cell(NOT_SCORED)
    return cell(scores.get(key), scores.get(f"{key}_low"), scores.get(f"{key}_high"))


def cell(point: object, low: object = None, high: object = None, sign: str = "") -> Cell:
    """As `score_cell`; `sign="+"` for differences."""
    if not isinstance(point, float):
        return Cell(UNDEFINED if point is None else str(point))
    known = low is not None and high is not None
    return Cell(f"{point:{sign}.3f}", f"[{low:{sign}.3f}, {high:{sign}.3f}]" if known else "")


def _marked(own: Cell, reference: Cell) -> Cell:
    if {own.text, reference.text} & {UNDEFINED, NOT_SCORED} or own.text == reference.text:
        return own
    return own._replace(mark="better" if float(own.text) > float(reference.text) else "worse")


def _run_rows(runs: Mapping[str, dict | None], keys: Sequence[str]) -> Body:
    return Body([(run, [score_cell(scores, key) for key in keys]) for run, scores in runs.items()])


def _flatten(values: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(values, Mapping):
        return {path: values}
    flat: dict[tuple[str, ...], object] = {}
    for key, value in values.items():
        flat |= _flatten(value, (*path, str(key)))
    return flat
