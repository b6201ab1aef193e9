"""Section `synthesize` of params.yaml."""

from pydantic import Field

from stages.common.params import Section


class SynthesizeParams(Section):
    """How many images the demo data set has per split, and how difficult they are. Shares are in [0, 1].

    defect_free: of images; subtle: of defects, drawn with low contrast; unboxed_subtle: of subtle defects in train and
    val, left without a box; contrast: factor on the contrast of every defect.
    """

    seed: int = Field(ge=0)
    train: int = Field(ge=0)
    val: int = Field(ge=0)
    test: int = Field(ge=0)
    defect_free: float = Field(ge=0, le=1)
    subtle: float = Field(ge=0, le=1)
    unboxed_subtle: float = Field(ge=0, le=1)
    contrast: float = Field(gt=0, le=4)
