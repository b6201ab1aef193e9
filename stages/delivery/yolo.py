"""YOLO-seg labels: one polygon a line, `class x1 y1 x2 y2 …`, in shares of the photograph's width and height.

A polygon has no hole: holes are filled here, and the command says how many. Every connected region has its own line.
"""

from stages.delivery.defects import Record
from stages.delivery.outlines import outlines


def lines(record: Record) -> str:
    """The text of a label file. No defect, an empty file: Ultralytics takes that for background."""
    height, width = record.size_hw
    text = ""
    for defect in record.defects:
        left, top = defect.box_xyxy[:2]
        ring, _ = outlines(defect.mask(record.size_hw))
        corners = " ".join(f"{(left + x) / width:.6f} {(top + y) / height:.6f}" for x, y in ring)
        text += f"{defect.class_id} {corners}\n"
    return text
