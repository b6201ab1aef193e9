"""Section `report` of params.yaml."""

from pydantic import Field

from stages.scoring.bootstrap import BootstrapParams
from stages.shell.params import Section


class ReportParams(Section):
    """`overlays`: pictures drawn, at most; `bootstrap`: resamples of the paired comparisons between runs."""

    overlays: int = Field(ge=0, le=24)
    bootstrap: BootstrapParams
