"""Label Studio's import file: one task per image, with one brush region per defect; it can have holes.

Label Studio encodes a brush as RGBA pixels of the whole image in the bit stream of the `rle-pack` library.
"""

import json
from collections.abc import Iterable
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from stages.formats.cvat import row_runs
from stages.formats.measured_defects import Record

LONGEST_RUN = 2**16


def label_studio(records: Iterable[Record], names: list[str], folder: str) -> dict[str, bytes]:
    """`label_studio.json` to import, and `label_studio.xml`, the labelling configuration that it needs.

    Images are referenced in Label Studio's local storage, which must be the folder that all inputs share, called
    `folder`; the document root must be the folder above: Label Studio refuses a storage at the root itself.
    """
    # each task becomes bytes at once: the run lengths as Python lists take several times the memory
    tasks = b", ".join(json.dumps(_task(record, names, folder)).encode() for record in records)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    brush = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name in names:
        ElementTree.SubElement(brush, "Label", value=name)
    ElementTree.indent(view)
    return {
        "label_studio.json": b"[" + tasks + b"]\n",
        "label_studio.xml": ElementTree.tostring(view) + b"\n",
    }


def _task(record: Record, names: list[str], folder: str) -> dict:
    height, width = record.size_hw
    regions = [
        {
            "id": f"defect{number}",
            "from_name": "label",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": defect.confidence,
            "value": {
                "format": "rle",
                "rle": list(brush_code(defect.mask(record.size_hw), defect.box_xyxy[:2], record.size_hw)),
                "brushlabels": [names[defect.class_id]],
            },
        }
        for number, defect in enumerate(record.defects, start=1)
    ]
    image = f"/data/local-files/?d={quote(folder)}/{quote(record.file)}"
    return {"data": {"image": image}, "predictions": [{"model_version": record.model, "result": regions}]}


def brush_code(mask: np.ndarray, origin_xy: tuple[int, int], size_hw: tuple[int, int]) -> bytes:
    """The encoded brush of an image of `size_hw` that is empty except for (h, w) bool `mask` at `origin_xy`.

    Header: number of values (32 bits), bits per value minus 1 (5), four widths of run lengths minus 1 (4 each). Then
    per run: 1, index of the width (2 bits), length minus 1 in that width, value (8 bits). Values are R, G, B, A of
    every pixel, all four 255 in the mask.
    """
    height, width = size_hw
    (left, top), (part_height, part_width) = origin_xy, mask.shape
    rows = np.zeros((part_height, width), dtype=bool)
    rows[:, left : left + part_width] = mask
    runs = row_runs(rows)
    runs[0] += top * width
    below = (height - top - part_height) * width
    if len(runs) % 2:
        runs[-1] += below
    else:
        runs.append(below)
    bits = [f"{4 * height * width:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for index, run in enumerate(runs):
        length, value = 4 * run, "11111111" if index % 2 else "00000000"
        while length > 0:
            part = min(length, LONGEST_RUN)
            bits.append(_run_head(part) + value)
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _run_head(length: int) -> str:
    for index, size in enumerate((3, 4, 8, 16)):
        if length <= 2**size:
            return f"1{index:02b}{length - 1:0{size}b}"
    raise ValueError(f"a run of {length} values is longer than {LONGEST_RUN}")
