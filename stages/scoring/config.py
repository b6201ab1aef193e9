"""Sections `evaluate` and `seeds` of params.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.scoring.bootstrap import BootstrapParams
from stages.shell.params import Section


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands there twice")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_different)]
"""Section `seeds`: every run is trained once for each of them, and its scores are means over them."""


class EvaluateParams(Section):
    """`resolution`: compare label maps at the photograph's own size, or as published, stretched to 518 x 518."""

    resolution: Literal["native", "stretched_518"]
    bootstrap: BootstrapParams
