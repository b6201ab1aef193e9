"""Section `evaluate` of params.yaml."""

from typing import Literal

from stages.scoring.bootstrap import BootstrapParams
from stages.shell.params import Section


class EvaluateParams(Section):
    """`resolution`: compare label maps at the photograph's own size, or as published, stretched to 518 x 518."""

    resolution: Literal["native", "stretched_518"]
    bootstrap: BootstrapParams
