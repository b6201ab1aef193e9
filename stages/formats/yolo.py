"""YOLO-seg labels: one polygon per line, `class x1 y1 x2 y2 …`, in shares of the image's width and height.

A polygon cannot have holes: they are filled here, and the command reports how many. Each connected region has a line.

Readers turn corners into whole pixels, by truncation (Ultralytics) or by rounding (supervision), and draw the border
too. So each corner lies in a pixel of the mask, about a quarter of a pixel after its start, where both give that pixel.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from stages.common.errors import UserError
from stages.formats.correction import BadDrawing, Drawing, smallest_on_top, value_of
from stages.formats.regions import Labelled
from stages.ingestion.data_yaml import parse_data_yaml
from stages.ingestion.labels import yolo_polygon

Ring = list[tuple[int, int]]
"""Corners (x, y) between pixels, in pixels of the mask; the last is connected to the first."""

CORNER_PX, SPREAD_PX = 0.25, 0.15
"""Distance of a corner from the start of its pixel, and how much less or more it is on opposite sides, so that even a
single pixel has an area."""

NOT_LABELS = ("classes.txt", "train.txt", "val.txt", "test.txt")
"""Text files beside the labels."""


def lines(record: Labelled) -> str:
    """The text of a label file; empty without defects, which Ultralytics reads as background."""
    height, width = record.size_hw
    text = ""
    for defect in record.defects:
        left, top = defect.box_xyxy[:2]
        ring = outline(defect.mask(record.size_hw))
        corners = " ".join(f"{(left + x) / width:.6f} {(top + y) / height:.6f}" for x, y in inset(ring))
        text += f"{defect.class_id} {corners}\n"
    return text


def inset(ring: Ring) -> Iterator[tuple[float, float]]:
    """Corners of a ring with the mask on its right-hand side, each moved into the adjacent pixel of the mask.

    A left turn lies between two pixels of the mask, and gives a corner in each.
    """
    for before, (x, y), after in zip(ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True):
        step, turn = _step(before, (x, y)), _step((x, y), after)
        right = (-step[1], step[0])
        yield _in_pixel(x, right[0] - step[0]), _in_pixel(y, right[1] - step[1])
        if turn != right:  # a left turn: the second pixel is straight ahead
            yield _in_pixel(x, step[0] + turn[0]), _in_pixel(y, step[1] + turn[1])


def _in_pixel(edge: int, side: int) -> float:
    """A coordinate inside the pixel after (`side` 1) or before (-1) an edge between pixels."""
    return edge + min(side, 0) + CORNER_PX - side * SPREAD_PX


def data_yaml(names: list[str], folders: Mapping[str, str]) -> bytes:
    """The data.yaml for Ultralytics of a data set with these class names; `folders`, next to it, by split."""
    splits = "".join(f"{split}: {folder}\n" for split, folder in folders.items())
    return f"path: .\n{splits}names: {json.dumps(names, ensure_ascii=False)}\n".encode()


def _step(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    """Direction of a straight edge."""
    return (end[0] > start[0]) - (end[0] < start[0]), (end[1] > start[1]) - (end[1] < start[1])


def outline(mask: np.ndarray) -> Ring:
    """The outer ring of an 8-connected (h, w) bool mask, along the edges of its pixels. Corners between equal steps are
    left out.

    The pixels with their centre inside it are the mask with its holes filled. A corner where only two pixels touch
    diagonally is passed twice.
    """
    padded, top = np.pad(mask, 1), int(mask.any(axis=1).argmax())
    start = int(mask[top].argmax()), top
    corner, step, ring = start, (1, 0), []  # with the mask on the right-hand side
    while True:
        corner = corner[0] + step[0], corner[1] + step[1]
        left, right = (step[1], -step[0]), (-step[1], step[0])
        # where two pixels touch at a corner, a left turn continues along the other one
        turn = left if _ahead(padded, corner, step, left) else step if _ahead(padded, corner, step, right) else right
        if turn != step:
            ring.append(corner)
        if corner == start:
            return ring
        step = turn


def _ahead(padded: np.ndarray, corner: tuple[int, int], step: tuple[int, int], side: tuple[int, int]) -> bool:
    """Whether the pixel ahead of a corner, on one `side` of the direction `step`, is in the mask (padded by 1)."""
    x, y = (at + (forward + aside + 1) // 2 for at, forward, aside in zip(corner, step, side, strict=True))
    return padded[y, x]


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


def class_names(name: str, data: bytes) -> list[str]:
    """Class names of a label folder, by class id, from its data.yaml or classes.txt."""
    try:
        if PurePosixPath(name).name == "classes.txt":
            return [line.strip() for line in data.decode("utf-8-sig").splitlines()]
        names = parse_data_yaml(data, name)["names"]
        return list(names) if isinstance(names, list) else [names[str(index)] for index in range(len(names))]
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{name}: no class names can be read ({' '.join(str(error).split())[:200]})") from None
