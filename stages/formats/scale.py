"""Millimetres per pixel of the images to predict: one number for all, a CSV with one per image, or their EXIF."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from stages.common.errors import UserError
from stages.common.files import as_it_was
from stages.data.decoding import FORMATS, BadImage
from stages.formats.inputs import Source, open_input, read

EXIF = "exif"
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
MM_PER_UNIT = {2: 25.4, 3: 10.0}
"""EXIF's ResolutionUnit: inch, centimetre."""
PLACEHOLDERS = (72, 96)
"""Pixels per inch that cameras and programs write when they know no scale."""
LARGEST = 1e6
"""Most millimetres per pixel: a kilometre. Areas of many times more are no numbers."""


def scales_of(mm_per_px: str, sources: Sequence[Source]) -> dict[str, float]:
    """`Source.file` to millimetres per pixel of every source.

    `mm_per_px`: a number, `exif`, or a CSV file with the columns file and mm_per_px. Raises UserError for a value that
    is not positive, and for images without one.
    """
    if mm_per_px == EXIF:
        return {source.file: scale for source in sources if (scale := _from_exif(source)) is not None}
    try:
        return dict.fromkeys((source.file for source in sources), positive(float(mm_per_px), "--mm-per-px"))
    except ValueError:
        pass
    path = Path(mm_per_px)
    if not path.is_file():
        raise UserError(f"--mm-per-px = {mm_per_px}: neither a number nor `{EXIF}` nor a CSV file")
    try:
        known = _from_csv(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({error})") from None
    if missing := [source.file for source in sources if source.file not in known]:
        raise UserError(f"{path}: no line for {len(missing)} of the images, the first is {missing[0]}")
    return known


def positive(value: float, where: str) -> float:
    """`value`. Raises UserError unless it is positive and at most LARGEST."""
    if not 0 < value <= LARGEST:
        raise UserError(f"{where} = {value}: millimetres per pixel must be above 0, and at most {LARGEST:,.0f}")
    return value


def _from_csv(path: Path) -> dict[str, float]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"file", "mm_per_px"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: line 1: columns {reader.fieldnames}; needed are file and mm_per_px")
        found: dict[str, float] = {}
        for row in reader:
            where, name = f"{path}: line {reader.line_num}: mm_per_px", as_it_was(row["file"] or "")
            if name in found:
                raise UserError(f"{path}: line {reader.line_num}: a second line for {name}")
            try:
                found[name] = positive(float(row["mm_per_px"]), where)
            except (TypeError, ValueError):
                raise UserError(f"{where} = {row['mm_per_px']!r}: not a number") from None
    return found


def _from_exif(source: Source) -> float | None:
    """None for an image that cannot be read, and is not predicted either."""
    try:
        return _resolution(source.path)
    except UserError:
        try:
            read(source)
        except BadImage:
            return None
        raise


def _resolution(path: Path) -> float:
    try:
        with open_input(path) as file, Image.open(file, formats=FORMATS) as image:
            tags = image.getexif()
        unit, x, y = tags.get(RESOLUTION_UNIT), *(float(tags.get(tag, 0)) for tag in (X_RESOLUTION, Y_RESOLUTION))
    except Exception as error:  # decoders raise nearly any exception on hostile bytes
        raise UserError(f"{path}: no EXIF that can be read ({error})") from None
    if unit not in MM_PER_UNIT or not (x > 0 and math.isfinite(x)):
        raise UserError(f"{path}: its EXIF holds no resolution in inches or centimetres")
    if x != y:
        raise UserError(f"{path}: its EXIF resolution differs, {x:g} across and {y:g} down; pixels must be square")
    if unit == 2 and x in PLACEHOLDERS:
        raise UserError(f"{path}: its EXIF resolution is {x:g} per inch, which is written where no scale is known")
    return MM_PER_UNIT[unit] / x
