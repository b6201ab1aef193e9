"""Sections `evaluate`, `seeds` and `rows` of params.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common.params import Section
from stages.evaluation.bootstrap import BootstrapParams


def _different(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("one of them stands there twice")
    return values


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_different)]
"""Section `seeds`: every run is trained once for each of them, and its scores are means over them."""


Rows = Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
"""Section `rows`: the runs that are trained and compared, all with the first of them."""


class EvaluateParams(Section):
    """`resolution`: compare label maps at the image's own size, or as published, stretched to 518 x 518."""

    resolution: Literal["native", "stretched_518"]
    bootstrap: BootstrapParams
