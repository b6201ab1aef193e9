"""One picture per image: image with boxes, teacher, student and truth, whole and enlarged."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from stages.data.tables import IGNORE
from stages.reporting.agreement import Agreement
from stages.reporting.zoom import Window, window_on

CELL_PX = 400
"""Longest side of each of the eight views."""
GAP_PX, BAR_PX, TITLE_PX = 8, 26, 34
PAPER, INK, QUIET = (250, 250, 248), (25, 25, 28), (110, 110, 115)
FILL, RIM_PX = 0.35, 2
COLOURS = (
    (255, 176, 0),
    (236, 0, 140),
    (0, 190, 235),
    (120, 200, 30),
    (150, 90, 255),
    (255, 90, 40),
    (0, 150, 120),
    (250, 235, 60),
)
IGNORE_COLOUR = (150, 150, 150)


@dataclass(frozen=True)
class Case:
    """All that one picture shows. Label maps are (H, W) uint8, 0 = background, class id + 1, 255 = ignore; or None."""

    title: str
    agreement: Agreement
    photo: np.ndarray
    boxes_xyxy: list[tuple[int, tuple[float, float, float, float]]]
    teacher: np.ndarray
    student: np.ndarray
    truth: np.ndarray | None


def draw(case: Case, names: tuple[str, ...], student_name: str) -> Image.Image:
    """RGB picture: four views of the whole image, below them the same four enlarged, with a legend."""
    height, width = case.photo.shape[:2]
    scale = CELL_PX / max(height, width)
    cell_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    reference = case.teacher if case.truth is None else case.truth
    zoom = window_on(reference, case.student, [box for _, box in case.boxes_xyxy])
    step_x, top = max(cell_wh[0], 250) + GAP_PX, TITLE_PX + BAR_PX
    sheet_wh = (4 * step_x + GAP_PX, top + 2 * (cell_wh[1] + GAP_PX) + BAR_PX)
    sheet = Image.new("RGB", sheet_wh, PAPER)
    pen = ImageDraw.Draw(sheet)
    room = sheet_wh[0] - 4 * GAP_PX - pen.textlength(case.agreement.note, _font(14))
    pen.text((GAP_PX, TITLE_PX / 2), _shortened(pen, case.title, room), INK, _font(17), anchor="lm")
    pen.text((sheet_wh[0] - GAP_PX, TITLE_PX / 2), case.agreement.note, INK, _font(14), anchor="rm")

    views = {
        "image and boxes": None,
        "teacher (pseudo-mask)": case.teacher,
        f"student ({student_name})": case.student,
        "pixel truth": case.truth,
    }
    for column, (heading, labels) in enumerate(views.items()):
        x = GAP_PX + column * step_x
        pen.text((x, TITLE_PX + BAR_PX / 2), heading, QUIET, _font(14), anchor="lm")
        for row, window in enumerate((Window(0, 0, width, height), zoom)):
            y = top + row * (cell_wh[1] + GAP_PX)
            if heading == "pixel truth" and labels is None:
                view = _no_truth(cell_wh)
            else:
                view = look(case.photo, labels, window, cell_wh)
                if labels is None:
                    _outline_boxes(view, case.boxes_xyxy, window)
                if row == 0 and zoom != window:
                    _frame(view, zoom, scale)
            sheet.paste(view, (x, y))
    _legend(pen, sheet_wh[1] - BAR_PX / 2, shown(case, names))
    return sheet


def look(photo: np.ndarray, labels: np.ndarray | None, window: Window, size_wh: tuple[int, int]) -> Image.Image:
    """The part of `photo` in `window` at `size_wh`, with `labels` tinted and outlined."""
    part = Image.fromarray(window.cut(photo))
    shrinks = part.width > size_wh[0]
    view = np.asarray(part.resize(size_wh, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC))
    if labels is None:
        return Image.fromarray(view)
    fill, rim = tints(window.cut(labels), size_wh)
    view = view.astype(np.float32)
    for value in np.unique(fill[fill > 0]):
        view[fill == value] = (1 - FILL) * view[fill == value] + FILL * np.array(colour_of(value))
    for value in np.unique(rim[rim > 0]):
        view[rim == value] = colour_of(value)
    return Image.fromarray(view.round().astype(np.uint8))


def tints(labels: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which label to tint each pixel of a picture of `size_wh` with, and which one's rim lies there; 0 = none.

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


def at_size(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Predictions of the stretched protocol, brought back to the image's size."""
    if labels.shape == size_hw:
        return labels
    return np.asarray(Image.fromarray(labels).resize((size_hw[1], size_hw[0]), Image.Resampling.NEAREST))


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB of a label value; the palette repeats after eight classes."""
    return IGNORE_COLOUR if label == IGNORE else COLOURS[(int(label) - 1) % len(COLOURS)]


def hex_of(label: int) -> str:
    """`colour_of` as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(label))


def _outline_boxes(view: Image.Image, boxes: list, window: Window) -> None:
    pen = ImageDraw.Draw(view)
    scale = view.width / window.width
    for class_id, (x1, y1, x2, y2) in boxes:
        left, top = round((x1 - window.left) * scale), round((y1 - window.top) * scale)
        right, bottom = round((x2 - window.left) * scale), round((y2 - window.top) * scale)
        # Drawn around the box, so that what it holds stays visible however small it is.
        pen.rectangle((left - 3, top - 3, right + 2, bottom + 2), outline=INK)
        pen.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=colour_of(class_id + 1), width=2)


def _frame(view: Image.Image, zoom: Window, scale: float) -> None:
    pen = ImageDraw.Draw(view)
    box = [round(side * scale) for side in (zoom.left, zoom.top, zoom.left + zoom.width, zoom.top + zoom.height)]
    corners = (box[0], box[1], min(box[2], view.width) - 1, min(box[3], view.height) - 1)
    pen.rectangle(corners, outline=(255, 255, 255), width=2)
    pen.rectangle((corners[0] + 2, corners[1] + 2, corners[2] - 2, corners[3] - 2), outline=(60, 60, 60))


def _no_truth(size_wh: tuple[int, int]) -> Image.Image:
    view = Image.new("RGB", size_wh, (226, 226, 222))
    ImageDraw.Draw(view).text((size_wh[0] / 2, size_wh[1] / 2), "no truth", QUIET, _font(16), anchor="mm")
    return view


def shown(case: Case, names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Name and label of all that the picture holds, so that a data set of many classes keeps a short legend."""
    maps = [labels for labels in (case.teacher, case.student, case.truth) if labels is not None]
    present = {int(value) for labels in maps for value in np.unique(labels)}
    present |= {class_id + 1 for class_id, _ in case.boxes_xyxy}
    return [("ignored" if label == IGNORE else names[label - 1], label) for label in sorted(present - {0})]


def _legend(pen: ImageDraw.ImageDraw, y: float, shown: list[tuple[str, int]]) -> None:
    x = float(GAP_PX)
    for text, label in shown:
        pen.rectangle((x, y - 6, x + 12, y + 6), fill=colour_of(label))
        pen.text((x + 18, y), text, INK, _font(13), anchor="lm")
        x += 18 + pen.textlength(text, _font(13)) + 18
    pen.text((x, y), "white frame: enlarged below", QUIET, _font(13), anchor="lm")


def _shortened(pen: ImageDraw.ImageDraw, text: str, room_px: float) -> str:
    """`text` without its middle where it is too long: both ends of a path tell more."""
    half = len(text) // 2
    short = text
    while half > 1 and pen.textlength(short, _font(17)) > room_px:
        half -= 1
        short = f"{text[:half]}…{text[-half:]}"
    return short


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The same letters on every machine: the ones that come with matplotlib."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
