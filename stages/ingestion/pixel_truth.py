"""Human masks (ground truth): 8-bit palette or grey PNGs of class ids + 1, or of class ids as Ultralytics has them."""

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from stages.common.errors import UserError
from stages.common.params import SHORT
from stages.data.decoding import BIT_DEPTH_AT
from stages.data.tables import IGNORE
from stages.ingestion.file_names import is_hidden


class BadMask(ValueError):
    """A mask that is not usable as truth; the message names the value and what is allowed."""


@dataclass(frozen=True)
class MaskFormat:
    """`folder`: replaces `images` in a mask's path; `labels`: value in the file to label (0, class id + 1, 255);
    `allowed`: those values in words."""

    folder: str
    labels: Mapping[int, int]
    allowed: str


def own_format(class_count: int) -> MaskFormat:
    """The format for a data.yaml without `masks_dir`: the values in the file are the labels."""
    labels = {value: value for value in (*range(class_count + 1), IGNORE)}
    return MaskFormat("masks", labels, f"0 (background), 1-{class_count} (class id + 1), 255 (ignored)")


def mask_format(config: dict, names: tuple[str, ...], where: str) -> MaskFormat:
    """How the masks of a data set are written, by its data.yaml.

    With `masks_dir`, as Ultralytics 8.4 reads them (SemanticDataset): values are class ids, after `label_mapping`, and
    the class called background is the background. If there is a single class, 0 is the background and 1 the class.
    Raises UserError that starts with `where`.
    """
    folder, mapping = config.get("masks_dir"), config.get("label_mapping", {})
    if folder is None:
        if mapping:
            raise UserError(f"{where}: label_mapping needs masks_dir, the folder of the masks whose values it maps")
        return own_format(len(names))
    path = PurePosixPath(folder) if isinstance(folder, str) else PurePosixPath("/")
    if path.is_absolute() or is_hidden(folder) or path.as_posix() in (".", "images"):
        raise UserError(
            f"{where}: masks_dir = {SHORT.repr(folder)}: expected the folder that stands for `images` in the path of a "
            f"mask, such as masks"
        )
    ids = {index: 0 if name.lower() == "background" else index + 1 for index, name in enumerate(names)}
    if len(names) == 1:
        ids = {0: 0, 1: 1}
    elif 0 not in ids.values():
        raise UserError(
            f"{where}: masks_dir = {folder!r}: a mask's value is its class id, and no class is called background; name "
            f"it in names, or leave masks_dir out where masks hold 0 for background and class id + 1"
        )
    ids[IGNORE] = IGNORE
    mapped = {value: _mapped(value, mapping, where) for value in range(256)}
    labels = {value: ids[to] for value, to in mapped.items() if to in ids}
    last = max(value for value in ids if value != IGNORE)
    return MaskFormat(path.as_posix(), labels, f"class ids 0-{last} and 255 (ignored), as masks_dir says")


def _mapped(value: int, mapping: object, where: str) -> int:
    """The class id that `label_mapping` gives to `value`, or `value` where it gives none. Raises UserError."""
    to = mapping.get(str(value), value) if isinstance(mapping, dict) else None
    to = IGNORE if to in ("ignore_label", "", "null", "~") else to
    if not isinstance(to, int | str) or not re.fullmatch("[0-9]{1,3}", str(to)):
        shown = SHORT.repr(mapping)
        raise UserError(f"{where}: label_mapping = {shown}: expected value: class id, or value: ignore_label")
    return int(to)


def misfits(labels: np.ndarray, boxes: Iterable[dict]) -> tuple[int, list[dict]]:
    """Number of `boxes` (rows of the boxes table) with a defect pixel of the (H, W) `labels` inside, and those of them
    that have no such pixel of their own class."""
    with_defect, wrong = 0, []
    for box in boxes:
        rows = slice(math.floor(box["y1"]), math.ceil(box["y2"]))
        inside = set(np.unique(labels[rows, math.floor(box["x1"]) : math.ceil(box["x2"])]).tolist()) - {0, IGNORE}
        with_defect += bool(inside)
        if inside and box["class_id"] + 1 not in inside:
            wrong.append(box)
    return with_defect, wrong


def parse_mask(data: bytes, size_hw: tuple[int, int], form: MaskFormat) -> np.ndarray:
    """(H, W) uint8 labels of a mask file, which must have the size of the upright image. Raises BadMask."""
    height, width = size_hw
    try:
        # the size is checked before decoding, which a decompression bomb must not reach
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.size != (width, height):
            raise BadMask(f"mask is {image.width} x {image.height}, the upright image {width} x {height}")
        if image.mode not in ("L", "P") or (image.mode == "L" and data[BIT_DEPTH_AT] != 8):
            raise BadMask(
                f"PNG of mode {image.mode} with {data[BIT_DEPTH_AT]} bits a sample, "
                f"allowed are 8-bit grey and palette indices"
            )
        labels = np.array(image)
    except (BadMask, MemoryError):
        raise
    except Exception as error:
        # decoders raise nearly any exception on hostile bytes
        raise BadMask(f"not a readable PNG: {error}") from None
    table = np.zeros(256, np.uint8)
    table[list(form.labels)] = list(form.labels.values())
    if wrong := [value for value in np.unique(labels).tolist() if value not in form.labels]:
        raise BadMask(f"value {wrong[0]}, allowed are {form.allowed}")
    return table[labels]
