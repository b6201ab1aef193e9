"""How far student and teacher are right about one image."""

from typing import NamedTuple

import numpy as np

from stages.metrics.scores import confusion, scores


class Agreement(NamedTuple):
    """Binary IoU of the student with the truth, or with the teacher where there is no truth; the teacher's own with
    the truth; None where neither side has a defect. `missed`, `invented`: pixels that the student got wrong."""

    with_truth: bool
    student: float | None
    teacher: float | None
    missed: int
    invented: int

    @property
    def error(self) -> float | None:
        """1 - the student's IoU."""
        return None if self.student is None else 1 - self.student

    @property
    def note(self) -> str:
        """All of it in one line."""
        if self.with_truth:
            return f"binary IoU with truth: student {_words(self.student)}, teacher {_words(self.teacher)}"
        return f"binary IoU, student with teacher: {_words(self.student, 'no defect in either')}"


def agreement(teacher: np.ndarray, student: np.ndarray, truth: np.ndarray | None, defect_classes: int) -> Agreement:
    """Label maps are (H, W) uint8; `truth` None where nobody drew one."""
    reference = teacher if truth is None else truth
    counts = confusion(reference, student, defect_classes + 1)
    own = None if truth is None else _iou(confusion(truth, teacher, defect_classes + 1))
    return Agreement(truth is not None, _iou(counts), own, int(counts[1:, 0].sum()), int(counts[0, 1:].sum()))


def _iou(counts: np.ndarray) -> float | None:
    return scores(counts, [str(number) for number in range(len(counts) - 1)])["iou_bin"]


def _words(iou: float | None, undefined: str = "right (no defect)") -> str:
    return undefined if iou is None else f"{iou:.2f}"
