"""Sections `loss` and `selfcorr` of params.yaml, and types that the methods' parameters share."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

ClassWeights = Literal["frequency"] | list[Annotated[float, Field(gt=0)]]


class HeadWeights(Section):
    """Base of a method's `Params`: weights of the losses of both heads; `binary` is None without a binary head."""

    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)


class LossParams(HeadWeights):
    """Section `loss`. `beta` is the asymmetric Dice's: its price of a false positive pixel, against 1 of a false
    negative.

    A run without a binary head needs neither `binary` nor `beta`.
    """

    beta: float | None = Field(ge=0)
    class_weights: ClassWeights


class SelfcorrParams(Section):
    """Section `selfcorr`. Background becomes a defect above the probability `tau`, after a share `warmup` of the
    steps.
    """

    tau: float = Field(gt=0, lt=1)
    warmup: Share


class SelfcorrSection(SelfcorrParams):
    """The section with its switch; a run that is switched off depends on nothing else in it."""

    enabled: bool
