"""YOLO-seg labels: one polygon a line, `class x1 y1 x2 y2 …`, in shares of the image's width and height.

A polygon has no hole: holes are filled here, and the command says how many. Every connected region has its own line.

Ultralytics cuts the corners' coordinates to whole pixels and draws the polygon with its border. Of a polygon along the
edges of pixels it would make a mask that is a pixel too wide and too high: a speck of 3 x 3 px would become 4 x 4. So
each corner lies a little inside of the pixel that it belongs to. The mask comes back to the pixel, and whoever measures
the polygon itself finds its area right to a twentieth of a pixel along the border.
"""

from collections.abc import Iterator

from stages.formats.defects import Record
from stages.formats.outlines import Ring, outlines

INSET_PX = 0.05
"""More than six decimals round off on an image of any size up to 100,000 px."""


def lines(record: Record) -> str:
    """The text of a label file. No defect, an empty file: Ultralytics takes that for background."""
    height, width = record.size_hw
    text = ""
    for defect in record.defects:
        left, top = defect.box_xyxy[:2]
        ring, _ = outlines(defect.mask(record.size_hw))
        corners = " ".join(f"{(left + x) / width:.6f} {(top + y) / height:.6f}" for x, y in inset(ring))
        text += f"{defect.class_id} {corners}\n"
    return text


def inset(ring: Ring) -> Iterator[tuple[float, float]]:
    """Corners of a ring that has the mask on its right hand, moved into the pixels of the mask beside them.

    A corner that the mask surrounds on three sides, or touches from two, lies between two pixels: one in each.
    """
    for before, (x, y), after in zip(ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True):
        step, turn = _step(before, (x, y)), _step((x, y), after)
        right = (-step[1], step[0])
        yield x + INSET_PX * (right[0] - step[0]), y + INSET_PX * (right[1] - step[1])
        if turn != right:  # then it turns left, and the pixel behind the corner lies straight on
            yield x + INSET_PX * (step[0] + turn[0]), y + INSET_PX * (step[1] + turn[1])


def _step(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    """Direction of one of a ring's straight edges."""
    return (end[0] > start[0]) - (end[0] < start[0]), (end[1] > start[1]) - (end[1] < start[1])
