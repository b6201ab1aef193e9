"""Sections `evaluate`, `seeds` and `rows` of params.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common.params import Section
from stages.evaluation.bootstrap import BootstrapParams


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("each value may be listed once only")
    return values


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_different)]
"""Section `seeds`: every run is trained once per seed; its scores are means over the seeds."""


Rows = Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
"""Section `rows`: the runs that are trained and compared; the first is the one that the others are compared with."""


class EvaluateParams(Section):
    """`resolution`: score label maps at the image's own size, or as published, stretched to 518 x 518."""

    resolution: Literal["native", "stretched_518"]
    bootstrap: BootstrapParams
