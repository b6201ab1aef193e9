"""Corrections in any format, by what a file or folder holds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.common.errors import UserError
from stages.formats.correction import Correction, KnownImages, Refused
from stages.formats.masks_in import read_masks


def read_corrections(path: Path, known: KnownImages, names: Sequence[str]) -> Iterator[Correction | Refused]:
    """The label maps in `path`, one image after another: a folder of index PNGs.

    `names`: of the data set's classes. Raises UserError where `path` as a whole holds nothing that can be read.
    """
    if path.is_dir() and any(path.rglob("*.png")):
        return read_masks(path, known, len(names))
    raise UserError(f"{path}: no corrections here; allowed is a folder of index PNGs")
