"""Pictures of the page: an image as JPEG and, to lay over it, a transparent PNG each of teacher, student and truth."""

import base64
import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from stages.data.boxes import Box, Window, connected
from stages.data.tables import IGNORE, encoded
from stages.evaluation.palette import COLOURS, IGNORE_COLOUR, hex_of_label
from stages.evaluation.probabilities import encode_shares, pooled
from stages.reporting.cases import Agreement, Case

VIEW_PX = 800
"""Longest side of a view as drawn; an image that has fewer pixels is embedded as it is."""
VIEW_BYTES = 200_000
"""Largest size of a view, image and layers together. With 24 images of two views and base64: under 13 MB per page."""
SMALLER = 0.8
"""While a view has more bytes than VIEW_BYTES, its side is multiplied by this or less."""
JPEG_QUALITY = 82
FILL_ALPHA, RIM_ALPHA, RIM_PX = 100, 255, 2
MIN_ZOOM_PX = 48
"""Least width of the enlarged window; a narrower one would show no surroundings."""
ZOOM_MARGIN = 1.8
"""Size of the enlarged window relative to the region in it."""


class Outline(NamedTuple):
    """A box in pixels of its view; `colour` as #rrggbb."""

    x: float
    y: float
    width: float
    height: float
    colour: str


class View(NamedTuple):
    """What one frame holds, as data URIs: `image`, and by name `layers` of `width` x `height` pixels; `shares`: the
    student's probabilities, the classes below each other, None where they were not written."""

    width: int
    height: int
    image: str
    layers: dict[str, str]
    boxes: list[Outline]
    shares: str | None


class Picture(NamedTuple):
    """An image of the page, whole and enlarged where it is most wrong. `legend`: class, #rrggbb."""

    title: str
    split: str
    agreement: Agreement
    whole: View
    close: View
    legend: list[tuple[str, str]]


def picture(case: Case, split: str, names: tuple[str, ...]) -> Picture:
    """`case` as the page shows it."""
    height, width = case.rgb.shape[:2]
    reference = case.teacher if case.truth is None else case.truth
    zoom = window_on(reference, case.student, [box for _, box in case.boxes_xyxy])
    whole, close = (view(case, window) for window in (Window(0, 0, width, height), zoom))
    return Picture(case.title, split, case.agreement, whole, close, _legend(case, names))


def _legend(case: Case, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Only what occurs in the image, so that a data set of many classes has a short legend."""
    present = {int(value) for labels in case.label_maps.values() for value in np.unique(labels)}
    present = sorted((present | {class_id + 1 for class_id, _ in case.boxes_xyxy}) - {0})
    return [("ignored" if label == IGNORE else names[label - 1], hex_of_label(label)) for label in present]


def view(case: Case, window: Window) -> View:
    """The part of `case` in `window`, VIEW_PX on its long side, or smaller where VIEW_BYTES requires it."""
    height, width = window.size_hw
    part = np.s_[window.y1 : window.y2, window.x1 : window.x2]
    side = float(VIEW_PX)
    while True:
        scale = side / max(width, height)
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        jpeg = jpeg_of(case.rgb[part], size_wh)
        layers = {name: _png(labels[part], size_wh) for name, labels in case.label_maps.items()}
        shares = _shares(case, window, size_wh)
        weight = len(jpeg) + len(shares or b"") + sum(map(len, layers.values()))
        if side < 16 or weight <= VIEW_BYTES:
            break
        side *= min(SMALLER, (VIEW_BYTES / weight) ** 0.5)
    uris = {name: data_uri("image/png", png) for name, png in layers.items()}
    boxes = [_outline(class_id, box, window, scale) for class_id, box in case.boxes_xyxy]
    seen = [box for box in boxes if -box.width < box.x < size_wh[0] and -box.height < box.y < size_wh[1]]
    return View(*size_wh, data_uri("image/jpeg", jpeg), uris, seen, shares and data_uri("image/png", shares))


def _shares(case: Case, window: Window, size_wh: tuple[int, int]) -> bytes | None:
    """The probabilities in `window`, with no more pixels than are stored of it; None where none are."""
    if case.shares is None:
        return None
    down, across = (own / whole for own, whole in zip(case.shares.shape[1:], case.rgb.shape[:2], strict=True))
    place = window.y1 * down, window.x1 * across, window.y2 * down, window.x2 * across
    own_hw = math.ceil(place[2] - place[0]), math.ceil(place[3] - place[1])
    return encode_shares(pooled(case.shares, place, (min(size_wh[1], own_hw[0]), min(size_wh[0], own_hw[1]))))


def window_on(reference: np.ndarray, predicted: np.ndarray, boxes_xyxy: list[Box]) -> Window:
    """The window to enlarge, of the image's own proportions; label maps are (H, W).

    Around the connected region of defect, true or predicted, with the most wrong pixels; where nothing is wrong, around
    the largest; where there is none, around the largest box; else the whole image.
    """
    true, found = (reference > 0) & (reference != IGNORE), (predicted > 0) & (reference != IGNORE)
    regions, count = connected(true | found)
    if count:
        index = np.arange(1, count + 1)
        wrong, area = ndimage.sum(true != found, regions, index), ndimage.sum(true | found, regions, index)
        rows, columns = ndimage.find_objects(regions)[np.lexsort((area, wrong))[-1]]
        return _around((columns.start, rows.start, columns.stop, rows.stop), reference.shape)
    if boxes_xyxy:
        return _around(max(boxes_xyxy, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])), reference.shape)
    return Window(0, 0, reference.shape[1], reference.shape[0])


def _around(box_xyxy: Box, size_hw: tuple[int, int]) -> Window:
    """A window of the image's proportions centred on the box, moved inside the image where it sticks out."""
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    share = max((x2 - x1) * ZOOM_MARGIN / width, (y2 - y1) * ZOOM_MARGIN / height, MIN_ZOOM_PX / width)
    cut_w, cut_h = (min(side, max(1, round(side * min(share, 1.0)))) for side in (width, height))
    left = min(max(0, round((x1 + x2 - cut_w) / 2)), width - cut_w)
    top = min(max(0, round((y1 + y2 - cut_h) / 2)), height - cut_h)
    return Window(left, top, left + cut_w, top + cut_h)


def tints(labels: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 maps of `size_wh`: the label to tint each pixel with, and the label whose rim lies there; 0 = none.

    A defect keeps at least one pixel however much `labels`, (H, W) uint8, shrink; its rim lies around it, not on it.
    """
    height, width = labels.shape
    way = Image.Resampling.BOX if width > size_wh[0] or height > size_wh[1] else Image.Resampling.NEAREST
    fill, rim = np.zeros((2, size_wh[1], size_wh[0]), dtype=np.uint8)
    for value in np.unique(labels[labels > 0]):
        mask = Image.fromarray((labels == value).astype(np.float32))
        inside = np.asarray(mask.resize(size_wh, way)) > 0
        around = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=RIM_PX) & ~inside
        fill[inside], rim[inside] = value, 0
        rim[around] = value
    return fill, rim


def jpeg_of(rgb: np.ndarray, size_wh: tuple[int, int]) -> bytes:
    """JPEG of (H, W, 3) uint8, shrunk to `size_wh`; a smaller image keeps its size."""
    image = Image.fromarray(rgb)
    if image.width > size_wh[0]:
        image = image.resize(size_wh, Image.Resampling.LANCZOS)
    return encoded(image, format="JPEG", optimize=True, quality=JPEG_QUALITY)


def data_uri(kind: str, content: bytes) -> str:
    """`content` of media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(labels: np.ndarray, size_wh: tuple[int, int]) -> bytes:
    """Transparent where `labels` are 0; defects tinted, with a solid rim around them."""
    fill, rim = tints(labels, size_wh)
    # Palette: nothing, then a tint and a rim of each colour, the last of them that of ignored pixels.
    uses = len(COLOURS) + 1
    place = np.concatenate([[0], np.arange(IGNORE - 1) % len(COLOURS) + 1, [uses]]).astype(np.uint8)
    image = Image.fromarray(np.where(rim > 0, place[rim] + uses, place[fill]).astype(np.uint8))
    colours = [channel for colour in (*COLOURS, IGNORE_COLOUR) for channel in colour]
    image.putpalette([0, 0, 0, *colours, *colours])
    alphas = bytes([0, *[FILL_ALPHA] * uses, *[RIM_ALPHA] * uses])
    return encoded(image, format="PNG", optimize=True, transparency=alphas)


def _outline(class_id: int, box_xyxy: Box, window: Window, scale: float) -> Outline:
    x1, y1, x2, y2 = box_xyxy
    sides = ((x1 - window.x1) * scale, (y1 - window.y1) * scale, (x2 - x1) * scale, (y2 - y1) * scale)
    return Outline(*(round(side, 1) for side in sides), hex_of_label(class_id + 1))
