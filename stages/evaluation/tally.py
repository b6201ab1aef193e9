"""All metrics of a run, from its students' predictions on val and test: per split, and of the operating points."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from stages.evaluation.average_precision import average_precision
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.config import EvaluateParams, Wish
from stages.evaluation.defect_metrics import mean_over_seeds, summarise_defects
from stages.evaluation.operating_points import curves
from stages.evaluation.scored_shards import Scored
from stages.evaluation.summary import summarise
from stages.metrics.scores import defined
from stages.student.decision import Decision


def split_metrics(
    split: str, seeds: Sequence[Scored], names: tuple[str, ...], bootstrap: BootstrapParams
) -> dict[str, object]:
    """{split: metrics}, or {split: None} and the reason under `<split>_not_scored`. `seeds`: one per student."""
    images, scored = seeds[0].images, len(seeds[0].confusion)
    if scored:
        counts = np.stack([seed.confusion for seed in seeds], axis=1)
        found = summarise_defects(np.stack([seed.defects for seed in seeds], axis=1), bootstrap)
        found |= mean_over_seeds([average_precision(seed.detected, names) for seed in seeds])
        return {
            split: summarise(counts, names, bootstrap) | {"images_without_truth": images - scored, "defects": found}
        }
    reason = (
        f"none of the {images} {split} images has pixel truth: masks lie in a folder `masks` where their images' "
        "folder `images` is, under the same names, as .png"
    )
    return {split: None, f"{split}_not_scored": reason if images else f"the data set has no {split} images"}


def operating_points(
    tallies: Mapping[str, Sequence[Scored]],
    decisions: Sequence[Decision],
    fulfilled: Sequence[Sequence[bool]],
    chosen_on: str,
    names: Sequence[str],
    values: EvaluateParams,
) -> tuple[dict, dict]:
    """For the metrics: wish, decisions, calibration errors, scores of test; and for the report: the curves of both
    splits, counts summed over seeds. `tallies`: val and test, one per seed; `decisions`, `fulfilled`: per seed."""
    wish = values.operating_point
    found: dict = {
        "wish": wish.model_dump(exclude_none=True) if isinstance(wish, Wish) else wish,
        "chosen_on": chosen_on,
        "by_seed": [
            decision.model_dump() | {"fulfilled": dict(zip(names, own, strict=True))}
            for decision, own in zip(decisions, fulfilled, strict=True)
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
    found["test"] = None
    if tallies["test"][0].point_confusion:
        pixels = np.stack([tally.point_confusion for tally in tallies["test"]], axis=1)
        defects = np.stack([tally.point_defects for tally in tallies["test"]], axis=1)
        of_defects = summarise_defects(defects, values.bootstrap)
        found["test"] = summarise(pixels, names, values.bootstrap) | {"defects": of_defects}
    return found, drawn
