"""Parameters of ingest: sections `data` and `ingest` of params.yaml."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stages.common.errors import UserError
from stages.common.params import Section


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class DataParams(Section):
    """Section `data`. `root`: the folder that holds data.yaml, relative to the project or absolute, or its URL.

    `manifest`: the file of `stages.manifest` that stands for the root; None: the root's files are checked each time.
    `trusted`: masks that people drew or corrected and that training takes as truth, in a folder or a file.
    """

    root: str = Field(min_length=1)
    manifest: Annotated[str, Field(min_length=1)] | None = None
    trusted: Annotated[str, Field(min_length=1)] | None = None

    def check_apart(self, *outputs: Path) -> None:
        """Raises UserError where an output is, holds or lies in `root` or `trusted`: it would replace what people
        made."""
        for key, value in (("root", self.root), ("trusted", self.trusted)):
            for out in outputs if value is not None else ():
                theirs, ours = Path(value).resolve(), out.resolve()
                if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
                    raise UserError(f"{out}: is, holds or lies in data.{key} = {value}, which is only read")


class SplitParams(Section):
    """Section `ingest.split`: how splits that data.yaml lacks are made out of its `train`.

    `group`: a regular expression that is searched in the image's path below the data root; images for which it
    captures the same text go into one split. None: the splits are those of data.yaml.
    `val`, `test`: shares of the groups, 0 to 1; `seed`: changes which groups they get.
    """

    group: Annotated[str, Field(min_length=1), AfterValidator(_pattern)] | None
    val: float = Field(gt=0, lt=1)
    test: float = Field(ge=0, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _train_remains(self) -> "SplitParams":
        if self.val + self.test >= 1:
            raise ValueError("val and test must leave a share for train: their sum must be less than 1")
        return self


class IngestParams(Section):
    """Section `ingest`.

    `duplicates`: whether images with the same bytes in two splits are an error, or are only reported.
    `near_duplicates`: images of two splits whose perceptual hashes differ in at most this many of 255 bits are
    listed; None: no comparison. Different images differ in about half of the bits.
    `max_bad_share`: largest share of lost images, label rows, label files or masks, of boxes smaller than a pixel, and
    of boxes on truth of other classes; above it the stage stops.
    `polygons`: what becomes of a row with the corners of a polygon: its enclosing box is taken (`box`); in train and
    val the polygon itself, as a mask that training trusts (`trust`); or the row is lost (`reject`). An oriented box,
    which has four corners, never becomes a trusted mask.
    `confidence`: minimum of the extra last column that detectors write: rows from it on are taken, without the column.
    None: rows with such a column are lost.
    `white_level`: the value that becomes 255 in images of more than 8 bits (4095 for 12-bit cameras); None: by their
    type, 65535 for 16-bit grey and 1 for floating-point numbers.
    """

    duplicates: Literal["error", "report"]
    near_duplicates: Annotated[int, Field(ge=0, le=127)] | None
    max_bad_share: float = Field(ge=0, le=1)
    polygons: Literal["box", "trust", "reject"]
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    white_level: Annotated[float, Field(gt=0)] | None
    split: SplitParams
