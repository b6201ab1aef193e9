"""Section `report` of params.yaml."""

from pydantic import Field

from stages.common.params import Section
from stages.evaluation.bootstrap import BootstrapParams


class ReportParams(Section):
    """`images`: largest number of images shown; `bootstrap`: of the paired comparisons between runs."""

    images: int = Field(ge=0, le=24)
    bootstrap: BootstrapParams
