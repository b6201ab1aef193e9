"""The report as one self-contained HTML page: scores and their intervals, what was not scored, and pictures."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.evaluation.defect_metrics import IOUS
from stages.evaluation.palette import hex_of_label
from stages.evaluation.summary import Difference
from stages.reporting import published
from stages.reporting.charts import DOTS, curve_chart, curve_class, recall_chart, scatter_chart, scores_chart
from stages.reporting.curves import TITLES, Curve, ends_table
from stages.reporting.defect_findings import TEACHER, Defects, Group, by_class, by_size, tally
from stages.reporting.defect_tables import (
    class_precision_table,
    corrections_table,
    false_positives_table,
    recall_table,
    summary_table,
)
from stages.reporting.layers import Picture
from stages.reporting.near_pairs import NearPair
from stages.reporting.score_tables import (
    UNDEFINED,
    class_table,
    difference_table,
    headline_table,
    published_table,
    score_cell,
    tree_table,
)
from stages.reporting.thresholds import thresholds_of

HERE = Path(__file__).parent
COMPARED = ("iou_bin", "miou_anom", "precision_bin")
"""Scores of the paired comparison between runs."""
LEVEL = 0.05
"""An adjusted p-value below this gets a star."""

YARDSTICKS = {"pseudo_masks": "SAM teacher, given the boxes", "filled_boxes": "every box filled"}

RESOLUTION = {
    "native": "at each image's own resolution",
    "stretched_518": "on images and truth stretched to 518 × 518, as published",
}
PUBLISHED_HEADINGS = ("Test: manual masks of DTU blade images", "Val: SAM's masks of DTU blade images")


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows. `metrics`: run -> its JSON; `differences`: run -> score -> its difference from
    that of `reference`, by `samples` bootstrap resamples; `oracles`: runs that learned from human masks; `teacher`:
    metrics/rasterize.json; `thresholds`: curves.json of `reference`; `near`: the pairs shown, and the number of all. Of
    the test images with truth, None where there is none: `defects`; `teacher_defects`, see `summarise_defects`;
    `corrections`, see `corrections_of`."""

    names: tuple[str, ...]
    reference: str
    oracles: Sequence[str]
    metrics: Mapping[str, dict]
    differences: Mapping[str, Mapping[str, Difference]]
    samples: int
    teacher: Mapping[str, dict]
    thresholds: Mapping[str, dict | None]
    curves: Sequence[Curve]
    defects: Defects | None
    teacher_defects: Mapping[str, object] | None
    corrections: Mapping[str, Mapping[str, Mapping[str, dict]]] | None
    pictures: Sequence[Picture]
    near: tuple[Sequence[NearPair], int]


def render(found: Findings) -> str:
    """The page. It fetches nothing: style, script and pictures are in it, and its policy allows nothing else."""
    style, script = (_inlined(name) for name in ("page.css", "page.js"))
    test = {run: values["test"] for run, values in found.metrics.items()}
    val = {run: values["val"] for run, values in found.metrics.items()}
    yardsticks = _yardsticks(found)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'",
        found=found,
        seeds=sorted({seed for values in found.metrics.values() for seed in values["seeds"]}),
        resolution=" / ".join(sorted({RESOLUTION[values["resolution"]] for values in found.metrics.values()})),
        lead=score_cell(test[found.reference] or {}, "iou_bin"),
        yardsticks=[(who, score_cell(scores, "iou_bin").text) for who, scores in yardsticks.items()],
        undefined=UNDEFINED,
        gaps=_gaps(found.metrics),
        scores=scores_chart({f"{run} ‡" if run in found.oracles else run: each for run, each in found.metrics.items()}),
        images={"test": _images(test), "val": _images(val)},
        test=headline_table("Test: every run against pixel truth", test, yardsticks),
        test_classes=class_table("Test, by class", test, found.names) if any(test.values()) else None,
        differences=difference_table(f"Each run minus {found.reference}", found.differences, COMPARED, LEVEL),
        compared=_compared(found),
        corrections=corrections_table("What each run made of the SAM teacher's errors", found.corrections)
        if found.corrections
        else None,
        val=headline_table("Val: every run against the pseudo-masks", val),
        val_classes=class_table("Val, by class", val, found.names) if any(val.values()) else None,
        teacher=tree_table("The pseudo-masks against truth, by split", found.teacher),
        curves=_curve_charts(found),
        ends=ends_table(found.curves),
        series=[(curve_class(number), run) for number, run in enumerate(found.metrics)],
        thresholds=thresholds_of(found.metrics[found.reference]["operating_point"], found.thresholds, found.names),
        class_series=[(curve_class(number), name) for number, name in enumerate(found.names)],
        slider=any(picture.whole.shares for picture in found.pictures),
        published=published_table(
            "Published scores", dict(zip(PUBLISHED_HEADINGS, (published.TEST, published.VAL), strict=True))
        ),
        classes=[(name, hex_of_label(number + 1)) for number, name in enumerate(found.names)],
        defects=_defects(found, test) if found.defects else None,
        ious=[f"{iou:g}" for iou in IOUS],
        most_dots=DOTS,
        splits=sorted({picture.split for picture in found.pictures}),
        shown_classes=[name for name in found.names if any(name in dict(p.legend) for p in found.pictures)],
    )


def _yardsticks(found: Findings) -> dict[str, Mapping[str, float | None]]:
    """Name -> test scores of masks made from the boxes; at native resolution, so shown beside such scores only."""
    scores = found.teacher.get("test", {})
    native = all(values["resolution"] == "native" for values in found.metrics.values())
    return {who: scores[key] for key, who in YARDSTICKS.items() if native and key in scores}


def _inlined(name: str) -> Markup:
    """Our own style or script, as it stands between its tags."""
    return Markup("\n" + (HERE / name).read_text(encoding="utf-8"))


def _source(text: Markup) -> str:
    """The hash by which a Content-Security-Policy allows one style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _gaps(metrics: Mapping[str, dict]) -> list[str]:
    """What was not scored, and why; each sentence once, not once per run."""
    sentences = (
        f"{split}: {sentence}"
        for values in metrics.values()
        for split in ("test", "val")
        for sentence in _gaps_of(values[split], values.get(f"{split}_not_scored"))
    )
    if any("val_trusted" in values for values in metrics.values()):
        apart = "val: what people drew for training is scored apart, as val_trusted in metrics/RUN.json."
        return [*dict.fromkeys(sentences), apart]
    return list(dict.fromkeys(sentences))


def _gaps_of(scores: dict | None, reason: str | None) -> Iterator[str]:
    if scores is None:
        yield f"{reason}. Its rows below are empty on purpose."
        return
    if missing := scores["images_without_truth"]:
        yield f"{missing} images have no truth; they are predicted, but not scored."
    if scores["recall_bin"] is None:
        yield "the reference has no defect pixel, so most scores are undefined."


def _images(runs: Mapping[str, dict | None]) -> str:
    return " / ".join(map(str, sorted({scores["images"] for scores in runs.values() if scores})))


def _curve_charts(found: Findings) -> list[tuple[str, Markup]]:
    number = {run: index for index, run in enumerate(found.metrics)}
    columns = dict.fromkeys(column for curve in found.curves for column in curve.points)
    charts = []
    for column in columns:
        title = TITLES.get(column, column)
        own = [(number[curve.run], curve.points[column]) for curve in found.curves if column in curve.points]
        charts.append((title, curve_chart(title, own)))
    return charts


def _compared(found: Findings) -> dict[str, object]:
    """The number of comparisons, and the smallest adjusted p-value that the number of resamples allows."""
    number = sum(one.p is not None for own in found.differences.values() for one in own.values())
    least = 2 * number / (found.samples + 1)
    return {"number": number, "level": f"{LEVEL:g}", "least": f"{least:.2g}", "too_few": least >= LEVEL}


def _defects(found: Findings, test: Mapping[str, dict | None]) -> dict[str, object]:
    defects, pair = found.defects, (TEACHER, found.reference)
    shown: dict[str, object] = {
        "count": len(defects.areas_px),
        "images": defects.images,
        "summary": summary_table("Defects detected and false positives", test, found.teacher_defects),
        "recall": recall_table("Share of the defects detected, by size and class", defects, found.names),
        "false_positives": false_positives_table("False positives per image, by their own size", defects),
        "precision": class_precision_table("AP50 by class", test, found.names),
    }
    if shown["count"]:
        best = defects.ious[found.reference].mean(axis=0)
        shown["sizes"] = recall_chart("Defects detected by size", _tallies(defects, by_size(defects.areas_px), pair))
        shown["classes"] = recall_chart(
            "Defects detected by class", _tallies(defects, by_class(defects, found.names), pair)
        )
        shown["each"] = scatter_chart("Every defect by size and IoU", defects.areas_px, best, defects.class_ids)
    return shown


def _tallies(defects: Defects, groups: Sequence[Group], pair: Sequence[str]) -> list[tuple[str, dict]]:
    return [(group.title, {who: tally(defects, who, group) for who in pair}) for group in groups]
