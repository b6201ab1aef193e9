"""Images for the page: a JPEG and, to lay over it, a transparent PNG for each of teacher, student and truth."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.data.tables import IGNORE
from stages.reporting.agreement import Agreement
from stages.reporting.overlays import COLOURS, IGNORE_COLOUR, Case, hex_of, shown, tints
from stages.reporting.zoom import Window, window_on

VIEW_PX = 800
"""Longest side of a view as drawn; an image that has fewer pixels is embedded as it is."""
VIEW_BYTES = 200_000
"""Bound of a view, image and layers together. With 24 images of two views and base64: under 13 MB a page."""
SMALLER = 0.8
"""Largest factor on a view's side for as long as it is over its bound."""
JPEG_QUALITY = 82
FILL_ALPHA, RIM_ALPHA = 100, 255


class Box(NamedTuple):
    """A box in pixels of its view; `colour` as #rrggbb."""

    x: float
    y: float
    width: float
    height: float
    colour: str


class View(NamedTuple):
    """What one frame of the gallery holds, as data URIs: `photo`, and `layers` of `width` x `height` by their name."""

    width: int
    height: int
    photo: str
    layers: dict[str, str]
    boxes: list[Box]


class Picture(NamedTuple):
    """An image of the gallery, whole and close to what went most wrong. `legend`: class, #rrggbb."""

    title: str
    split: str
    agreement: Agreement
    whole: View
    close: View
    legend: list[tuple[str, str]]


def picture(case: Case, split: str, names: tuple[str, ...]) -> Picture:
    """`case` as the page shows it."""
    height, width = case.photo.shape[:2]
    reference = case.teacher if case.truth is None else case.truth
    zoom = window_on(reference, case.student, [box for _, box in case.boxes_xyxy])
    whole, close = (view(case, window) for window in (Window(0, 0, width, height), zoom))
    legend = [(name, hex_of(label)) for name, label in shown(case, names)]
    return Picture(case.title, split, case.agreement, whole, close, legend)


def view(case: Case, window: Window) -> View:
    """The part of `case` in `window`, VIEW_PX on its long side, or as much smaller as VIEW_BYTES asks for."""
    side = float(VIEW_PX)
    while True:
        scale = side / max(window.width, window.height)
        size_wh = max(1, round(window.width * scale)), max(1, round(window.height * scale))
        photo = _jpeg(window.cut(case.photo), size_wh)
        maps = {"teacher": case.teacher, "student": case.student, "truth": case.truth}
        layers = {name: _png(window.cut(labels), size_wh) for name, labels in maps.items() if labels is not None}
        weight = len(photo) + sum(map(len, layers.values()))
        if side < 16 or weight <= VIEW_BYTES:
            break
        side *= min(SMALLER, (VIEW_BYTES / weight) ** 0.5)
    uris = {name: _data_uri("image/png", png) for name, png in layers.items()}
    boxes = [_box(class_id, box, window, scale) for class_id, box in case.boxes_xyxy]
    seen = [box for box in boxes if -box.width < box.x < size_wh[0] and -box.height < box.y < size_wh[1]]
    return View(*size_wh, _data_uri("image/jpeg", photo), uris, seen)


def _jpeg(photo: np.ndarray, size_wh: tuple[int, int]) -> bytes:
    image = Image.fromarray(photo)
    if image.width > size_wh[0]:
        image = image.resize(size_wh, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _png(labels: np.ndarray, size_wh: tuple[int, int]) -> bytes:
    """Transparent where `labels` are 0; defects tinted, with a solid rim around them."""
    fill, rim = tints(labels, size_wh)
    # Palette: nothing, then a tint and a rim of each colour, the last of them that of ignored pixels.
    place = np.concatenate([[0], np.arange(IGNORE - 1) % len(COLOURS) + 1, [len(COLOURS) + 1]]).astype(np.uint8)
    uses = len(COLOURS) + 1
    image = Image.fromarray(np.where(rim > 0, place[rim] + uses, place[fill]).astype(np.uint8))
    colours = [channel for colour in (*COLOURS, IGNORE_COLOUR) for channel in colour]
    image.putpalette([0, 0, 0, *colours, *colours])
    alpha = bytes([0, *[FILL_ALPHA] * uses, *[RIM_ALPHA] * uses])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=alpha, optimize=True)
    return buffer.getvalue()


def _box(class_id: int, box_xyxy: tuple[float, float, float, float], window: Window, scale: float) -> Box:
    x1, y1, x2, y2 = box_xyxy
    x, y = (x1 - window.left) * scale, (y1 - window.top) * scale
    return Box(round(x, 1), round(y, 1), round((x2 - x1) * scale, 1), round((y2 - y1) * scale, 1), hex_of(class_id + 1))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
