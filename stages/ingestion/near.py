"""Near duplicates across splits for people: a list, and a picture of the nearest pairs side by side."""

import csv
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from stages.common.files import new_folder
from stages.data.images import read_image
from stages.ingestion.duplicates import Pair, Seen

DRAWN = 24
"""Pairs in the picture; the list has all."""

CELL_PX, CAPTION_PX, GAP_PX, ACROSS = 300, 20, 10, 2
PAPER, INK = (250, 250, 248), (25, 25, 28)


def write_near_duplicates(folder: Path, root: Path, pairs: list[Pair]) -> None:
    """Write pairs.csv and, where there is one, pairs.png into `folder`. Images are read from `root` again."""
    with new_folder(folder) as part:
        with (part / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("distance", "split", "path", "other_split", "other_path"))
            for pair in pairs:
                row = (pair.photo.split, pair.photo.path, pair.twin.split, pair.twin.path)
                writer.writerow((pair.distance, *row))
        if pairs:
            draw_pairs(root, pairs[:DRAWN]).save(part / "pairs.png")


def draw_pairs(root: Path, pairs: list[Pair]) -> Image.Image:
    """RGB picture: each pair side by side, two pairs a row, with split, path and distance below each image."""
    step_wh = (2 * CELL_PX + 2 * GAP_PX, CELL_PX + CAPTION_PX + GAP_PX)
    rows = -(-len(pairs) // ACROSS)
    sheet = Image.new("RGB", (min(ACROSS, len(pairs)) * step_wh[0] + GAP_PX, rows * step_wh[1] + GAP_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    # the same letters on every machine: the ones that come with matplotlib
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)
    for index, pair in enumerate(pairs):
        left, top = index % ACROSS * step_wh[0] + GAP_PX, index // ACROSS * step_wh[1] + GAP_PX
        for shift, one in ((0, pair.photo), (CELL_PX, pair.twin)):
            view = _shrunk(root, one)
            sheet.paste(view, (left + shift, top + CELL_PX - view.height))
            text = f"{one.split}: {one.path}" if shift else f"{pair.distance} bits | {one.split}: {one.path}"
            pen.text((left + shift, top + CELL_PX + 3), _shortened(pen, text, font), INK, font)
    return sheet


def _shrunk(root: Path, one: Seen) -> Image.Image:
    view = Image.fromarray(read_image(root, one.path, one.sha256, one.exif_orientation))
    scale = (CELL_PX - GAP_PX) / max(view.size)
    return view.resize((max(1, round(view.width * scale)), max(1, round(view.height * scale))))


def _shortened(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont) -> str:
    """`text` on one line without its middle where it is too long for its cell: both ends of a path tell more."""
    text = " ".join(text.split())
    half, short = len(text) // 2, text
    while half > 1 and pen.textlength(short, font) > CELL_PX - GAP_PX:
        half -= 1
        short = f"{text[:half]}…{text[-half:]}"
    return short
