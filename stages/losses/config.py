"""Sections `loss` and `selfcorr` of params.yaml, and types that the methods' parameters share."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section

LARGEST = 1_000_000
"""Of a weight: with larger ones the loss is soon beyond float32, or its other terms are lost."""

Weight = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]

ClassWeights = Literal["frequency"] | list[Annotated[float, Field(gt=0, le=LARGEST)]]


class HeadWeights(Section):
    """Base of a method's `Params`: weights of the losses of both heads; `binary` is None without a binary head."""

    fine: float = Field(gt=0, le=LARGEST)
    binary: float | None = Field(gt=0, le=LARGEST)


class LossParams(HeadWeights):
    """Section `loss`. `beta`: cost of a false positive pixel in the asymmetric Dice; a false negative costs 1.

    `class_weights`: K+1 numbers, background first, or `frequency`, from the shares of the labels' pixels.
    A run without a binary head needs neither `binary` nor `beta`.
    """

    beta: Weight | None
    class_weights: ClassWeights


class SelfcorrParams(Section):
    """Section `selfcorr`. Background becomes a defect above the probability `tau`, after a share `warmup` of the
    steps.
    """

    tau: float = Field(gt=0, lt=1)
    warmup: Share


class SelfcorrSection(SelfcorrParams):
    """The section with its switch; a run with `enabled` false depends on nothing else in it."""

    enabled: bool
