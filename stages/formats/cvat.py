"""CVAT for images 1.1: one <mask> per defect, with its box and the run lengths in it; it can have holes.

To be imported into a task with the same label names and the same image file names.
"""

from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

import numpy as np

from stages.evaluation.palette import hex_of_label
from stages.formats.measured_defects import Record


def cvat(records: Iterable[Record], names: list[str]) -> bytes:
    """The bytes of `annotations.xml`."""
    root = ElementTree.Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for class_id, name in enumerate(names):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "color").text = hex_of_label(class_id + 1)
        SubElement(label, "type").text = "mask"
        SubElement(label, "attributes")
    for index, record in enumerate(records):
        height, width = record.size_hw
        image = SubElement(root, "image", id=str(index), name=record.file, width=str(width), height=str(height))
        for defect in record.defects:
            x1, y1, x2, y2 = defect.box_xyxy
            place = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1, "z_order": 0}
            runs = ", ".join(map(str, row_runs(defect.mask(record.size_hw))))
            about = {"label": names[defect.class_id], "source": "auto", "occluded": "0", "rle": runs}
            SubElement(image, "mask", about | {key: str(value) for key, value in place.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def row_runs(mask: np.ndarray) -> list[int]:
    """Run lengths of (h, w) bool `mask` along its rows, background first: 0 where the first pixel is in the mask."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs
