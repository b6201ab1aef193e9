"""What the operating points of a run need of a split: gathered while its images are predicted, summed over seeds."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa

from stages.data.tables import decode_label_map
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.config import EvaluateParams, Wish
from stages.evaluation.defect_metrics import counts_of, outcome, summarise_defects
from stages.evaluation.operating_points import Counts, Watch, curves
from stages.evaluation.split_metrics import at_resolution
from stages.evaluation.summary import summarise
from stages.metrics.scores import confusion, defined
from stages.student.decision import Decision


class Tally:
    """Of one student and split. `references`: label maps as PNG by image id; `decision`: scored beside argmax."""

    def __init__(
        self, references: Mapping[str, pa.Scalar], classes: int, values: EvaluateParams, decision: Decision | None
    ) -> None:
        self.references, self.classes, self.values, self.decision = references, classes, values, decision
        self.counts: Counts | None = None
        self.at_point: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(self, size_hw: tuple[int, int]) -> Watch:
        """To be called with the strips of an image while it is predicted."""
        return Watch(size_hw, self.classes, self.decision)

    def add(self, image_id: str, watch: Watch) -> None:
        """Count the image, if it has a reference."""
        if (png := self.references.get(image_id)) is None:
            return
        truth = at_resolution(decode_label_map(png.as_py()), self.values)
        own = watch.counts(truth)
        self.counts = own if self.counts is None else self.counts + own
        if self.decision is not None:
            labels = watch.decided()
            self.at_point.append((confusion(truth, labels, self.classes + 1), counts_of(outcome(truth, labels))))


def scores_at_point(tallies: Sequence[Tally], names: Sequence[str], bootstrap: BootstrapParams) -> dict | None:
    """All scores of the split with the students' decisions, as `split_metrics` gives them for argmax."""
    if not tallies[0].at_point:
        return None
    pixels, defects = (np.stack([[one[place] for one in t.at_point] for t in tallies], 1) for place in (0, 1))
    return summarise(pixels, names, bootstrap) | {"defects": summarise_defects(defects, bootstrap)}


def operating_points(
    tallies: Mapping[str, Sequence[Tally]],
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
