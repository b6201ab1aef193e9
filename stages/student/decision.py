"""From logits to labels: by argmax, or by the operating point chosen for a student, which lies beside its weights."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Section, parse, read_sealed
from stages.data.boxes import connected

DECISION = "operating_point.json"
"""Lies beside the weights of the students that the stage `evaluate` has written."""

Share = Annotated[float, Field(gt=0, lt=1)]


class Decision(Section):
    """How logits become labels.

    `thresholds`: per class, on the probability at temperature 1: a pixel gets, of the classes whose threshold it
    reaches, that with the largest ratio of probability to threshold; background where there is none. None: argmax.
    `least_area_px`: per class, smaller regions become background; None: none does. `temperature`: divides the logits
    before the probability that is reported as confidence.
    """

    thresholds: list[Share] | None = None
    least_area_px: list[Annotated[int, Field(ge=1)]] | None = None
    temperature: float = Field(default=1.0, gt=0)


ARGMAX = Decision()


def read_decision(folder: Path, classes: int) -> Decision:
    """The decision of the student in `folder`; ARGMAX if the file is absent. Raises UserError if it cannot be read."""
    path = folder / DECISION
    if not path.is_file():
        return ARGMAX
    values = read_sealed(path, "evaluate the run again")
    return checked(parse(Decision, values, str(path)), classes, str(path))


def checked(decision: Decision, classes: int, where: str) -> Decision:
    """`decision`, unchanged. Raises UserError when it is for another number of classes."""
    for name in ("thresholds", "least_area_px"):
        values = getattr(decision, name)
        if values is not None and len(values) != classes:
            raise UserError(f"{where}: {name} holds {len(values)} values, the student has {classes} classes")
    return decision


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the first axis; overwrites `logits`."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


def decide(logits: np.ndarray, decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    """Labels and their confidence, (h, w) each, from (K+1, h, w) logits, which are overwritten. Keeps small regions."""
    calibrated = None if decision.temperature == 1 else softmax(logits / np.float32(decision.temperature))
    probabilities = softmax(logits)
    if decision.thresholds is None:
        labels = probabilities.argmax(0)
    else:
        ratios = probabilities[1:] / np.array(decision.thresholds, np.float32)[:, None, None]
        labels = np.where(ratios.max(0) >= 1, ratios.argmax(0) + 1, 0)
    shown = probabilities if calibrated is None else calibrated
    return labels, np.take_along_axis(shown, labels[None], 0)[0]


def drop_small(labels: np.ndarray, decision: Decision) -> None:
    """Turn 8-connected regions of (H, W) uint8 `labels` below `least_area_px` into background, in place."""
    for label, least in enumerate(decision.least_area_px or (), start=1):
        if least > 1:
            regions, count = connected(labels == label)
            small = np.bincount(regions.ravel(), minlength=count + 1) < least
            small[0] = False
            labels[small[regions]] = 0
