"""All metrics of a run, from its students' predictions on val and test: per split, and of the operating points."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from stages.evaluation.average_precision import average_precision
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.config import EvaluateParams, Wish
from stages.evaluation.defect_metrics import mean_over_seeds, summarise_by_class, summarise_defects
from stages.evaluation.operating_points import curves, reached
from stages.evaluation.scored_shards import Scored, Tally
from stages.evaluation.summary import summarise
from stages.metrics.scores import defined
from stages.student.decision import Decision


def split_metrics(
    split: str, seeds: Sequence[Scored], names: tuple[str, ...], bootstrap: BootstrapParams
) -> dict[str, object]:
    """{split: metrics}, or {split: None} and the reason under `<split>_not_scored`. `seeds`: one per student."""
    images, scored = seeds[0].images, len(seeds[0].confusion)
    if scored:
        found = _summary(seeds, names, bootstrap)
        defects = found.pop("defects") | mean_over_seeds([average_precision(seed.detected, names) for seed in seeds])
        return {split: found | {"images_without_truth": images - scored, "defects": defects}}
    reason = (
        f"none of the {images} {split} images has pixel truth: masks lie in a folder `masks` where their images' "
        "folder `images` is, under the same names, as .png"
    )
    return {split: None, f"{split}_not_scored": reason if images else f"the data set has no {split} images"}


def _summary(seeds: Sequence[Tally], names: Sequence[str], bootstrap: BootstrapParams) -> dict[str, object]:
    confusion, defects, classes = (
        np.stack([getattr(seed, field) for seed in seeds], axis=1) for field in ("confusion", "defects", "classes")
    )
    by_class = {"by_class": summarise_by_class(classes, names, bootstrap)}
    return summarise(confusion, names, bootstrap) | {"defects": summarise_defects(defects, bootstrap) | by_class}


def operating_points(
    tallies: Mapping[str, Sequence[Scored]],
    decisions: Sequence[Decision],
    chosen_on: str,
    names: Sequence[str],
    values: EvaluateParams,
) -> tuple[dict, dict]:
    """For the metrics: wish, decisions, what they reach on val, calibration errors, scores of test; and for the report:
    the curves of both splits, counts summed over seeds. `tallies`: val and test, per seed, as `decisions`."""
    wish = values.operating_point
    found: dict = {
        "wish": wish.model_dump(exclude_none=True) if isinstance(wish, Wish) else wish,
        "chosen_on": chosen_on,
        "by_seed": [
            decision.model_dump() | reached(val.point.classes, wish, names)
            for decision, val in zip(decisions, tallies["val"], strict=True)
        ],
    }
    drawn: dict = {}
    for split, own in tallies.items():
        known = [tally.counts for tally in own if tally.counts is not None]
        if not known:
            found[f"{split}_expected_calibration_error"], drawn[split] = None, None
            continue
        seeds = list(zip([counts.confidence for counts in known], decisions, strict=True))
        errors = {
            "before": [confidence.error(1.0) for confidence, _ in seeds],
            "after": [confidence.error(decision.temperature) for confidence, decision in seeds],
        }
        means = {key: defined(np.mean(each)) for key, each in errors.items()}
        found[f"{split}_expected_calibration_error"] = means
        drawn[split] = curves(reduce(add, known), names) | {
            "calibration": [confidence.curve(decision.temperature) for confidence, decision in seeds]
        }
    points = [tally.point for tally in tallies["test"]]
    found["test"] = _summary(points, names, values.bootstrap) if points[0].confusion else None
    return found, drawn
