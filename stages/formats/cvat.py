"""CVAT for images 1.1: one <mask> per defect, with its box and the run lengths in it; it can have holes.

It is imported into a task with the same label names and image file names. Masks and polygons can be read back.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

import numpy as np

from stages.common.errors import UserError
from stages.evaluation.palette import hex_of_label
from stages.formats.correction import BadDrawing, Drawing, Refused, filled_polygon, label_map_of, malformed, value_of
from stages.formats.regions import Labelled


def cvat(records: Iterable[Labelled], names: list[str]) -> Iterator[bytes]:
    """The bytes of `annotations.xml`, image by image. `names`: of the classes."""
    root = ElementTree.Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for about in label_settings(names):
        label = SubElement(labels, "label")
        for key in ("name", "color", "type"):
            SubElement(label, key).text = about[key]
        SubElement(label, "attributes")
    ElementTree.indent(root)
    head = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    end = b"</annotations>"
    yield head.removesuffix(end)
    for index, record in enumerate(records):
        height, width = record.size_hw
        image = ElementTree.Element("image", id=str(index), name=record.file, width=str(width), height=str(height))
        for defect in record.defects:
            x1, y1, x2, y2 = defect.box_xyxy
            place = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1, "z_order": 0}
            runs = ", ".join(map(str, row_runs(defect.mask(record.size_hw))))
            about = {"label": names[defect.class_id], "source": "auto", "occluded": "0", "rle": runs}
            SubElement(image, "mask", about | {key: str(value) for key, value in place.items()})
        ElementTree.indent(image, level=1)
        yield b"  " + ElementTree.tostring(image, encoding="utf-8") + b"\n"
    yield end + b"\n"


def label_settings(names: list[str]) -> list[dict]:
    """The labels of a task, which as JSON can be pasted into CVAT's `Raw` label editor."""
    return [
        {"name": name, "color": hex_of_label(label), "type": "mask", "attributes": []}
        for label, name in enumerate(names, start=1)
    ]


def row_runs(mask: np.ndarray) -> list[int]:
    """Run lengths of (h, w) bool `mask` along its rows, background first: 0 where the first pixel is in the mask."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def read_cvat(data: bytes, values: Mapping[str, int], source: str) -> Iterator[Drawing | Refused]:
    """The images of an `annotations.xml`; each has to be drawn before the next one is taken.

    `values`: of labels, see `correction.values_of`. Raises UserError, which begins with `source`, for another file.
    """
    exported_at = None
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(data)):
            if element.tag == "dumped":
                exported_at = element.text
            elif element.tag == "track":
                raise UserError(f"{source}: is of a video; export it as `CVAT for images 1.1`")
            elif element.tag == "image":
                name = element.get("name", "")
                try:
                    size_hw = int(element.get("height", "")), int(element.get("width", ""))
                except ValueError as error:
                    yield malformed(name, error, source)
                    continue
                yield Drawing(name, size_hw, partial(_draw, element, values), exported_at=exported_at)
                element.clear()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: of its encoding
        raise UserError(f"{source}: not a readable file of CVAT for images ({error})") from None


def _draw(image: ElementTree.Element, values: Mapping[str, int], size_hw: tuple[int, int]) -> np.ndarray:
    ordered = sorted(image, key=lambda shape: int(shape.get("z_order", 0)))
    shapes = (shape for shape in ordered if shape.tag != "tag")
    parts = ((*_shape(shape, size_hw), value_of(shape.get("label"), values)) for shape in shapes)
    return label_map_of(parts, size_hw)


def _shape(shape: ElementTree.Element, size_hw: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Place and (h, w) bool mask of a shape. Raises BadDrawing."""
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in shape.get("points").split(";")]
        return filled_polygon(np.array(points, np.float64), size_hw)
    if shape.tag != "mask":
        raise BadDrawing(f"a {shape.tag} of {shape.get('label')!r}: only masks and polygons say which pixels")
    left, top, width, height = (int(shape.get(key)) for key in ("left", "top", "width", "height"))
    runs = np.array(shape.get("rle").split(","), np.int64)
    fits = 0 <= left < left + width <= size_hw[1] and 0 <= top < top + height <= size_hw[0]
    if not fits or runs.min() < 0 or runs.sum() != width * height:
        raise BadDrawing(f"a mask of {width} x {height} at ({left}, {top}) with {runs.sum()} pixels does not fit")
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return (slice(top, top + height), slice(left, left + width)), mask
