"""How much the predictions of an exported network differ from those of its student."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from stages.common.errors import UserError
from stages.runtime.calibration import stacks
from stages.student.tiling import TILES_AT_ONCE, RunTiles


@dataclass(frozen=True)
class Tolerance:
    """`agreement`: least share of pixels with the same label. `defect_iou`: least IoU of the two masks of all defects;
    where defects are rare, `agreement` alone says little about them. `logit`: largest difference, None: no bound."""

    agreement: float
    defect_iou: float
    logit: float | None


EXACT = Tolerance(agreement=0.9999, defect_iou=0.999, logit=0.01)
"""Of float32 exports: only the order of summation differs."""

INT8 = Tolerance(agreement=0.99, defect_iou=0.9, logit=None)


@dataclass(frozen=True)
class Parity:
    """Compared on `pixels` pixels; `defect_iou` is None where neither network predicts a defect."""

    pixels: int
    mask_agreement: float
    defect_iou: float | None
    largest_logit_difference: float

    def __str__(self) -> str:
        iou = "neither predicts a defect" if self.defect_iou is None else f"IoU of the defects {self.defect_iou:.4f}"
        agreement = f"mask agreement {100 * self.mask_agreement:.3f} % of {self.pixels:,} pixels"
        return f"{agreement}, {iou}, largest logit difference {self.largest_logit_difference:.2g}"

    def as_json(self) -> dict:
        """All fields, rounded to six decimals."""
        return {key: value if value is None else round(value, 6) for key, value in asdict(self).items()}


def compare(ours: RunTiles, theirs: RunTiles, tiles: Iterable[np.ndarray]) -> Parity:
    """Run both on (S, S, 3) float32 tiles, RGB, 0 to 255."""
    pixels = same = both = either = 0
    difference = 0.0
    for batch in stacks(tiles, TILES_AT_ONCE):
        a, b = ours(batch), theirs(batch)
        difference = float(np.maximum(difference, np.abs(a - b).max()))  # NaN stays NaN
        a, b = a.argmax(1), b.argmax(1)
        pixels, same = pixels + a.size, same + int((a == b).sum())
        both, either = both + int(((a > 0) & (b > 0)).sum()), either + int(((a > 0) | (b > 0)).sum())
    return Parity(pixels, same / pixels, both / either if either else None, difference)


def check(found: Parity, allowed: Tolerance, what: str) -> None:
    """Raises UserError when `found` is not within `allowed`, NaN included."""
    problems = []
    if not found.mask_agreement >= allowed.agreement:
        problems.append(f"mask agreement under {100 * allowed.agreement:g} %")
    if found.defect_iou is not None and not found.defect_iou >= allowed.defect_iou:
        problems.append(f"IoU of the defects under {allowed.defect_iou:g}")
    if not np.isfinite(found.largest_logit_difference):
        problems.append("logits that are not finite")
    elif allowed.logit is not None and found.largest_logit_difference > allowed.logit:
        problems.append(f"logits further apart than {allowed.logit:g}")
    if problems:
        raise UserError(f"{what}: differs from the student: {', '.join(problems)} ({found})")
