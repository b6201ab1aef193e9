"""Parameters of the losses."""

from typing import Annotated, Literal

from pydantic import Field

from stages.shell.params import Section


class LossParams(Section):
    """Section `loss`. The plan of a run without a binary head holds neither its weight nor beta."""

    fine: float = Field(gt=0)
    binary: float | None = Field(gt=0)
    beta: float | None = Field(ge=0)
    class_weights: Literal["frequency"] | list[Annotated[float, Field(gt=0)]]


class SelfcorrParams(Section):
    """Section `selfcorr`. `warmup` is the share of the training steps before it starts."""

    tau: float = Field(gt=0, lt=1)
    warmup: float = Field(ge=0, le=1)
