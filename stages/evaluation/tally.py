"""Operating points of a run, for its metrics and the report's curves, from what its students make of val and test."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.config import EvaluateParams, Wish
from stages.evaluation.defect_metrics import summarise_defects
from stages.evaluation.operating_points import curves
from stages.evaluation.scored_shards import Scored
from stages.evaluation.summary import summarise
from stages.metrics.scores import defined
from stages.student.decision import Decision


def scores_at_point(tallies: Sequence[Scored], names: Sequence[str], bootstrap: BootstrapParams) -> dict | None:
    """All scores of the split with the students' decisions, as `split_metrics` gives them for argmax."""
    if not tallies[0].at_point:
        return None
    pixels, defects = (np.stack([[one[place] for one in t.at_point] for t in tallies], 1) for place in (0, 1))
    return summarise(pixels, names, bootstrap) | {"defects": summarise_defects(defects, bootstrap)}


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
        "wish": wish.model_dump(exclude_unset=True) if isinstance(wish, Wish) else wish,
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
    found["test"] = scores_at_point(tallies["test"], names, values.bootstrap)
    return found, drawn
