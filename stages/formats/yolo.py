"""YOLO-seg labels: one polygon per line, `class x1 y1 x2 y2 …`, in shares of the image's width and height.

A polygon cannot have holes: they are filled here, and the command reports how many. Each connected region has a line.

Readers turn corners into whole pixels, by truncation (Ultralytics) or by rounding (supervision), and draw the border
too. So each corner lies in a pixel of the mask, about a quarter of a pixel after its start, where both give that pixel.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from stages.common.errors import UserError
from stages.formats.correction import BadDrawing, Drawing, smallest_on_top, value_of
from stages.formats.regions import Labelled
from stages.ingestion.data_yaml import class_names, parse_data_yaml
from stages.ingestion.labels import yolo_polygon

CORNER_PX, LEVEL = 0.25, 0.85
"""Distance of a corner from the start of its pixel, give or take 1 - LEVEL on opposite sides, so that even a single
pixel has an area."""

NOT_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt")
"""Text files beside the labels."""


def lines(record: Labelled) -> str:
    """The text of a label file; empty without defects, which Ultralytics reads as background."""
    height, width = record.size_hw
    text = ""
    for defect in record.defects:
        left, top = defect.box_xyxy[:2]
        ring = outline(defect.mask(record.size_hw))
        corners = " ".join(f"{(left + x) / width:.6f} {(top + y) / height:.6f}" for x, y in ring)
        text += f"{defect.class_id} {corners}\n"
    return text


def data_yaml(names: list[str], folders: Mapping[str, str]) -> bytes:
    """The data.yaml for Ultralytics of a data set with these class names; `folders`, next to it, by split."""
    splits = "".join(f"{split}: {folder}\n" for split, folder in folders.items())
    return f"path: .\n{splits}names: {json.dumps(names, ensure_ascii=False)}\n".encode()


def outline(mask: np.ndarray) -> np.ndarray:
    """(N, 2) float64 corners x, y of an 8-connected (h, w) bool mask with its holes filled, clockwise, each inside a
    pixel of the mask. Corners between equal steps are left out."""
    filled = np.pad(ndimage.binary_fill_holes(mask), 1)
    (ring,) = find_contours(filled, LEVEL, fully_connected="high", positive_orientation="low")
    steps = np.diff(ring, axis=0)
    turns = ~np.isclose(steps, np.roll(steps, 1, axis=0)).all(axis=1)
    return ring[:-1][turns][:, ::-1] - 1 + CORNER_PX


def read_yolo(name: str, data: bytes, names: Sequence[str], values: Mapping[str, int]) -> Drawing:
    """The label file `name`, whose class ids are indices of `names`. `values`: see `correction.values_of`.

    Polygons are filled as by Ultralytics; smaller ones are on top.
    """

    def draw(size_hw: tuple[int, int]) -> np.ndarray:
        parts = []
        for number, row in enumerate(data.decode("utf-8-sig").splitlines(), start=1):
            if words := row.split():
                if len(words) < 7 or len(words) % 2 == 0 or not 0 <= int(words[0]) < len(names):
                    wanted = f"a class of 0 to {len(names) - 1} and three corners or more"
                    raise BadDrawing(
                        f"line {number}: class {words[0]} and {len(words) - 1} numbers, needed are {wanted}"
                    )
                points = np.array(words[1:], np.float64).reshape(-1, 2)
                if not ((points >= 0) & (points <= 1)).all():
                    raise BadDrawing(f"line {number}: a corner outside of the image; allowed are shares of 0 to 1")
                parts.append((*yolo_polygon(points, size_hw), value_of(names[int(words[0])], values)))
        return smallest_on_top(parts, size_hw)

    return Drawing(name[: -len(".txt")], None, draw, holes=False)


def names_of(name: str, data: bytes) -> list[str]:
    """Class names of a label folder, by class id, from its data.yaml or classes.txt, which messages call `name`."""
    if not name.endswith("classes.txt"):
        return list(class_names(parse_data_yaml(data, name), name))
    try:
        return [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: no class names can be read ({error})") from None
