"""Parameters of the losses: one section a method, told apart by `method`. The published value stands in the docstring.

Warm-ups are shares of the training steps; 0 means none.
"""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


ClassWeights = Literal["frequency"] | list[Annotated[float, Field(gt=0)]]


class LossParams(Section):
    """Section `loss`: weights of the heads, beta of the asymmetric Dice. A run without a binary head needs neither its
    weight nor beta, and a method takes what it has a use for.
    """

    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)
    beta: float | None = Field(ge=0)
    class_weights: ClassWeights


class SelfcorrParams(Section):
    """Section `selfcorr`. `warmup` is the share of the training steps before it starts."""

    tau: float = Field(gt=0, lt=1)
    warmup: Share


class Boxes2PixelsParams(Section):
    """Method `boxes2pixels`: the sections `loss` and `selfcorr`; None for a run that does not self-correct."""

    method: Literal["boxes2pixels"]
    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)
    beta: float | None = Field(ge=0)
    selfcorr: SelfcorrParams | None


class BoxLossParams(Section):
    """What every box-supervised method has.

    `stride`: pixels a cell of the grid that the losses work on (4 in all of these papers; 2 for cracks, 1 for none).
    `fine`, `binary`: weights of the heads (ours: 0.5 each); `binary` is None for a run without a binary head.
    `projection`, `pairwise`: weights of BoxInst's terms (1 and 1).
    `colour`: colour similarity from which two neighbours should agree (0.3).
    `outside`: weight of the background term outside all boxes (ours: 1).
    `warmup`: over which the pairwise term, and what a teacher adds, rise to their full weight (10,000 of 90,000
    steps: 0.11).
    """

    stride: Literal[1, 2, 4]
    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)
    projection: Weight
    pairwise: Weight
    colour: float = Field(gt=0, le=1)
    outside: Weight
    warmup: Share


class BoxInstParams(BoxLossParams):
    """Method `boxinst`."""

    method: Literal["boxinst"]


class DiscoBoxParams(BoxLossParams):
    """Method `discobox`, in the reduced form of its file; all numbers are ours.

    `refined`: weight of the Dice with the refined mask (1). `steps`: of mean field (5). `coupling`: how many units of
    logit a cell moves when all its neighbours have its colour and agree (4).
    """

    method: Literal["discobox"]
    refined: Weight
    steps: int = Field(ge=0)
    coupling: Weight


class BoxTeacherParams(BoxLossParams):
    """Method `boxteacher`.

    `source`: whose masks: the EMA student's (`ema`, published), SAM's (`sam`), or SAM's until the EMA's are better
    (`sam_then_ema`). `pixel`, `affinity`: weights of the pseudo-mask losses (0.5 and 0.1).
    """

    method: Literal["boxteacher"]
    source: Literal["ema", "sam", "sam_then_ema"]
    pixel: Weight
    affinity: Weight


class BankParams(Section):
    """The copy-paste bank, and when an instance survives being pasted over.

    `images`: at most so many in the bank (80). `min_quality`, `min_score`: of an instance to be admitted, its
    mask's quality and predicted IoU (0.5 and 0.5). `max_box_iou`: with any other box of its image (0.1).
    `min_area_px`: of its mask, and of what pasting leaves of another (300 on images of 800 px and more; 75 is
    the same at 518). `max_shift_px`: an instance of which less is left stays too, if no side of its box moved by
    more (10).
    """

    images: int = Field(ge=1)
    min_quality: Share
    min_score: Share
    max_box_iou: Share
    min_area_px: int = Field(ge=1)
    max_shift_px: float = Field(ge=0)


class BoxSegParams(BoxLossParams):
    """Method `boxseg`.

    `quality_aware`: its Quality-Aware Module; without it masks are chosen and scored as `boxteacher` does with
    `sam_then_ema`. `fusion`: of a box's candidates, as in the paper (`published`) or in the authors' code
    (`released`). `copy_paste`: Peer-assisted Copy-paste, None for none. `pixel`, `affinity`: as in `boxteacher`.
    """

    method: Literal["boxseg"]
    quality_aware: bool
    fusion: Literal["published", "released"]
    copy_paste: BankParams | None
    pixel: Weight
    affinity: Weight


class TwoSidedParams(Section):
    """Method `two_sided`.

    `fine`, `binary`, `beta`: as in `loss`. `tau`: `typical`, the rule of its file, or the paper's fixed threshold
    (0.9). `warmup`: share of the training steps before the student has a say.
    """

    method: Literal["two_sided"]
    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)
    beta: float | None = Field(ge=0)
    tau: Literal["typical"] | Annotated[float, Field(gt=0, lt=1)]
    warmup: Share


Supervision = Annotated[
    Boxes2PixelsParams | TwoSidedParams | BoxInstParams | DiscoBoxParams | BoxTeacherParams | BoxSegParams,
    Field(discriminator="method"),
]
"""The parameters of one method, whichever."""

PARAMS_OF: dict[str, type[Section]] = {
    "boxes2pixels": Boxes2PixelsParams,
    "two_sided": TwoSidedParams,
    "boxinst": BoxInstParams,
    "discobox": DiscoBoxParams,
    "boxteacher": BoxTeacherParams,
    "boxseg": BoxSegParams,
}
