"""Section `synthesize` of params.yaml."""

from pydantic import Field

from stages.common.params import Section


class SynthesizeParams(Section):
    """How many images the demo data set has, and how hard they are. Shares are in [0, 1]."""

    seed: int = Field(ge=0)
    train: int = Field(ge=0)
    val: int = Field(ge=0)
    test: int = Field(ge=0)
    defect_free: float = Field(ge=0, le=1)
    subtle: float = Field(ge=0, le=1)
    unboxed_subtle: float = Field(ge=0, le=1)
    contrast: float = Field(gt=0, le=4)
