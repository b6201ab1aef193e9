"""Label Studio's import file: one task per image, with one brush region per defect; it can have holes.

Label Studio encodes a brush as RGBA pixels of the whole image, in the bit stream of the `rle-pack` library. Brushes
and polygons of its JSON export can be read back.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from stages.formats.correction import (
    MALFORMED,
    BadDrawing,
    Drawing,
    Refused,
    filled_polygon,
    label_map_of,
    malformed,
    value_of,
)
from stages.formats.cvat import row_runs
from stages.formats.regions import Labelled

WIDTHS = (3, 4, 8, 16)
"""Of the run lengths of a brush that is written, in bits."""

NOT_SHAPES = ("choices", "textarea", "rating", "number", "taxonomy", "relation")
"""Types of results that mark no pixels."""

STORED = {"sha256", "rank", "reasons"}
"""Fields of a record, if it has them, that Label Studio stores with an image, sorts its tasks by, and exports again."""

UPLOADED = re.compile("^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def label_studio(records: Iterable[Labelled], names: list[str], folder: str) -> dict[str, Iterator[bytes]]:
    """`label_studio.json` to import, task by task, and `label_studio.xml`, the labelling configuration that it needs.

    Images are referenced in Label Studio's local storage, which must be the folder that all inputs share, called
    `folder`; the document root must be the folder above: Label Studio refuses a storage at the root itself.
    """
    tasks = (json.dumps(_task(record, names, folder)).encode() for record in records)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    brush = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name in names:
        ElementTree.SubElement(brush, "Label", value=name)
    ElementTree.indent(view)
    return {"label_studio.json": _array(tasks), "label_studio.xml": iter([ElementTree.tostring(view) + b"\n"])}


def _array(items: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON array in parts."""
    yield b"["
    for number, item in enumerate(items):
        yield b", " * (number > 0) + item
    yield b"]\n"


def _task(record: Labelled, names: list[str], folder: str) -> dict:
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
            **({} if defect.confidence is None else {"score": defect.confidence}),
            "value": {
                "format": "rle",
                "rle": list(brush_code(defect.mask(record.size_hw), defect.box_xyxy[:2], record.size_hw)),
                "brushlabels": [names[defect.class_id]],
            },
        }
        for number, defect in enumerate(record.defects, start=1)
    ]
    image = f"/data/local-files/?d={quote(folder)}/{quote(record.file)}"
    return {
        "data": {"image": image} | record.model_dump(include=STORED),
        "predictions": [{"model_version": record.model, "result": regions}],
    }


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
    bits = [f"{4 * height * width:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in WIDTHS)]
    for index, run in enumerate(runs):
        length, value = 4 * run, "11111111" if index % 2 else "00000000"
        while length > 0:
            part = min(length, 2 ** WIDTHS[-1])
            width, size = next((width, size) for width, size in enumerate(WIDTHS) if part <= 2**size)
            bits.append(f"1{width:02b}{part - 1:0{size}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def read_label_studio(tasks: list[dict], values: Mapping[str, int], source: str) -> Iterator[Drawing | Refused]:
    """The images of the tasks with a submitted annotation; drawing one with several raises BadDrawing.

    `values`: of labels, see `correction.values_of`. `source`: the file, for refusals of malformed tasks.
    """
    for number, task in enumerate(tasks, start=1):
        name = f"task {number}"
        try:
            name = image_name(task["data"])
            if submitted := [one for one in task.get("annotations", []) if not one.get("was_cancelled")]:
                yield _drawing(name, task["data"].get("sha256"), submitted, values)
        except MALFORMED as error:
            yield malformed(name, error, source)


def _drawing(name: str, sha256: str | None, submitted: list[dict], values: Mapping[str, int]) -> Drawing:
    last = submitted[-1]
    shapes = [one for one in last["result"] if one.get("type") not in NOT_SHAPES]
    sizes = {(one["original_height"], one["original_width"]) for one in shapes}
    size_hw = sizes.pop() if len(sizes) == 1 else None
    return Drawing(name, size_hw, partial(_draw, shapes, values, len(submitted)), sha256, last.get("updated_at"))


def image_name(data: Mapping[str, object]) -> str:
    """Path of a task's image: of a file in local storage, of an uploaded one, or of one at an address."""
    url = urlsplit(str(data.get("image", "")))
    path = parse_qs(url.query).get("d", [unquote(url.path)])[0]
    if "upload" in PurePosixPath(path).parts:
        return UPLOADED.sub("", PurePosixPath(path).name)
    return path


def _draw(shapes: list[dict], values: Mapping[str, int], annotations: int, size_hw: tuple[int, int]) -> np.ndarray:
    if annotations > 1:
        raise BadDrawing(f"{annotations} annotations of one image: keep one")
    parts = (
        (*_shape(shape, size_hw), value_of((shape["value"].get(shape["type"]) or [None])[0], values))
        for shape in shapes
    )
    return label_map_of(parts, size_hw)


def _shape(shape: dict, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Place and (h, w) bool mask of a region. Raises BadDrawing."""
    value = shape["value"]
    if (shape["original_height"], shape["original_width"]) != size_hw or shape.get("image_rotation"):
        raise BadDrawing("a region drawn on the image at another size or turned")
    if shape["type"] == "polygonlabels":
        return filled_polygon(np.array(value["points"], np.float64) * size_hw[::-1] / 100, size_hw)
    if shape["type"] != "brushlabels" or value.get("format") != "rle":
        raise BadDrawing(f"a region of {shape['type']}: only brushlabels and polygonlabels say which pixels")
    return (slice(None), slice(None)), brush_mask(bytes(value["rle"]), size_hw)


def brush_mask(code: bytes, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of an encoded brush, see `brush_code`: where alpha is not 0. Raises BadDrawing."""
    bits = f"{int.from_bytes(code, 'big'):0{8 * len(code)}b}"
    total, word = int(bits[:32], 2), int(bits[32:37], 2) + 1
    widths = [int(bits[place : place + 4], 2) + 1 for place in range(37, 53, 4)]
    if total != 4 * size_hw[0] * size_hw[1] or word != 8:
        raise BadDrawing(f"a brush of {total} values of {word} bits, needed are {4 * size_hw[0] * size_hw[1]} of 8")
    pixels, place, done = np.zeros(total, np.uint8), 53, 0
    while done < total:
        width = widths[int(bits[place + 1 : place + 3], 2)]
        length, is_run = int(bits[place + 3 : place + 3 + width], 2) + 1, bits[place] == "1"
        place += 3 + width
        size = 8 if is_run else 8 * length
        values = int(bits[place : place + size], 2).to_bytes(size // 8, "big")
        pixels[done : done + length] = values[0] if is_run else np.frombuffer(values, np.uint8)
        place, done = place + size, done + length
    return pixels.reshape(*size_hw, 4)[..., 3] > 0
