"""Section `report` of params.yaml."""

from pydantic import Field

from stages.common.params import Section
from stages.evaluation.bootstrap import BootstrapParams


class ReportParams(Section):
    """`overlays`: pictures drawn, at most; `bootstrap`: resamples of the paired comparisons between runs."""

    overlays: int = Field(ge=0, le=24)
    bootstrap: BootstrapParams
