"""Clutter on a surface that is no defect: lines, cables, letters, rivets, fittings, shadows, other materials.

Each kind takes a surface, float32 (H, W, 3), and returns the changed one.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from stages.pretraining.world.materials import material
from stages.pretraining.world.primitives import SCALE, Draw, Size, blend, drawn

SCENERY = (0.05, 0.15, 0.3)
"""Contrasts of the grain of what lies behind an edge: grass and trees are rougher than any product."""


def clutter(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """`surface` with none to four kinds of clutter."""
    kinds = (_line, _line, _edge, _edge, _shadow, _cast, _letters, _rivets, _fitting, _fins, _cable, _band)
    for _ in range(draw.choice([0, 0, 1, 1, 2, 3, 4])):
        surface = kinds[draw.integers(len(kinds))](draw, surface)
    return surface


def _line(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A straight line or panel seam, sometimes embossed."""
    size = np.array(surface.shape[1::-1])
    ends, width = draw.uniform(-0.2, 1.2, (2, 2)) * size, draw.uniform(0.7, 4)
    if draw.random() < 0.5:
        ends[:, draw.integers(2)] = ends[0, 0] if draw.random() < 0.5 else ends[0, 1]
    return _painted(draw, surface, lambda pen: _stroke(pen, ends, width), relief=draw.random() < 0.3)


def _cable(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A smooth curve of constant width."""
    start, bend, end = draw.uniform(-0.2, 1.2, (3, 2)) * surface.shape[1::-1]
    along = np.linspace(0, 1, 24)[:, None]
    points = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
    width = draw.uniform(1, 5)
    return _painted(draw, surface, lambda pen: _stroke(pen, points, width))


def _band(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A painted stripe across the surface."""
    inside = _half_plane(draw, surface.shape[:2]) * (1 - _half_plane(draw, surface.shape[:2]))
    return blend(surface, inside * draw.uniform(0.3, 1), _tone(draw, surface))


def _edge(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """Beyond a straight edge begins another material, scenery or empty space."""
    side = _half_plane(draw, surface.shape[:2])
    other = np.zeros_like(surface) + 0.03 if draw.random() < 0.25 else material(draw, surface.shape[:2], SCENERY)
    return blend(surface, side, other)


def _shadow(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A soft half in the shade."""
    across = _half_plane(draw, surface.shape[:2])
    soft = np.asarray(Image.fromarray(across).resize((9, 9)).resize(surface.shape[1::-1], Image.Resampling.BICUBIC))
    return surface * (1 - draw.uniform(0.1, 0.5) * np.clip(soft, 0, 1)[..., None])


def _cast(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """The shadow of something outside the image: a dark, straight-sided patch with blurred sides."""
    centre = draw.uniform(-0.2, 1.2, 2) * surface.shape[1::-1]
    corners = centre + _rectangle(draw, draw.uniform(15, 90), draw.uniform(0.1, 1))
    shade = gaussian_filter(drawn(surface.shape[:2], lambda pen: _fill(pen, corners)), draw.uniform(0.5, 5))
    return surface * (1 - draw.uniform(0.1, 0.5) * shade[..., None])


def _letters(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A word of one to six random characters."""
    text = "".join(draw.choice(list("ABCDEFGHKLMNOPRSTXaeghnorst0123456789-"), draw.integers(1, 7)))
    height = draw.uniform(0.08, 0.6) * min(surface.shape[:2]) + 6
    at = tuple(draw.uniform(-0.1, 0.8, 2) * surface.shape[1::-1] * SCALE)
    font = ImageFont.load_default(height * SCALE)
    turn = draw.choice([0, 0, 90, 180, 270]) if draw.random() < 0.6 else draw.uniform(0, 360)
    return _painted(draw, surface, lambda pen: pen.text(at, text, fill=255, font=font), turn=turn, least=0.15)


def _rivets(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A row of equal round heads."""
    radius, pitch, start = draw.uniform(1, 4), draw.uniform(8, 30), draw.uniform(0, 1, 2) * surface.shape[1::-1]
    angle = draw.choice([0, np.pi / 2]) if draw.random() < 0.5 else draw.uniform(0, np.pi)
    along = pitch * np.array([np.cos(angle), np.sin(angle)])
    count = draw.integers(0, 9)
    centres = [start + step * along for step in range(-count, count + 1)]
    return _painted(draw, surface, lambda pen: [_disc(pen, xy, radius) for xy in centres], relief=draw.random() < 0.3)


def _fins(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A row of equal small triangles or bars, such as vortex generators or cooling slots."""
    piece = _rectangle(draw, draw.uniform(5, 16), draw.uniform(0.15, 0.6))
    piece = piece[:3] if draw.random() < 0.5 else piece
    step = _heading(draw) * draw.uniform(8, 30)
    start, count = draw.uniform(0, 1, 2) * surface.shape[1::-1], draw.integers(1, 9)
    pieces = [start + number * step + piece for number in range(-count, count + 1)]
    return _painted(draw, surface, lambda pen: [_fill(pen, each) for each in pieces], relief=draw.random() < 0.6)


def _fitting(draw: Draw, surface: np.ndarray) -> np.ndarray:
    """A plate, cover, lamp or bolt: a rectangle or disc with a rim, perhaps with rivets at its corners."""
    centre, length = draw.uniform(0, 1, 2) * surface.shape[1::-1], draw.uniform(8, 60)
    round_one, riveted = draw.random() < 0.4, draw.random() < 0.4
    corners = centre + _rectangle(draw, length, draw.uniform(0.4, 1))

    def shape(pen: ImageDraw.ImageDraw) -> None:
        _disc(pen, centre, length / 3) if round_one else _fill(pen, corners)

    surface = _painted(draw, surface, shape, relief=True)
    if riveted:
        inner = centre + 0.75 * (corners - centre)
        surface = _painted(draw, surface, lambda pen: [_disc(pen, xy, length / 20 + 0.5) for xy in inner])
    return surface


def _painted(
    draw: Draw, surface: np.ndarray, paint, turn: float = 0.0, relief: bool = False, least: float = 0.05
) -> np.ndarray:
    """`surface` with what `paint` draws (see `drawn`) in one tone that differs by at least `least`.

    `relief` lights one side of it and shades the other.
    """
    coverage = drawn(surface.shape[:2], paint, turn)
    result = blend(surface, coverage * draw.uniform(0.25, 1), _tone(draw, surface, least))
    if relief:
        shift = tuple(draw.choice([-1, 1], 2))
        slope = coverage - np.roll(coverage, shift, (0, 1))
        result = result + draw.uniform(0.05, 0.3) * slope[..., None]
    return result


def _stroke(pen: ImageDraw.ImageDraw, points_xy: np.ndarray, width: float) -> None:
    pen.line([tuple(point) for point in points_xy * SCALE], 255, max(1, round(width * SCALE)), joint="curve")


def _fill(pen: ImageDraw.ImageDraw, corners_xy: np.ndarray) -> None:
    pen.polygon([tuple(corner) for corner in corners_xy * SCALE], fill=255)


def _disc(pen: ImageDraw.ImageDraw, centre_xy: np.ndarray, radius: float) -> None:
    low, high = (centre_xy - radius) * SCALE, (centre_xy + radius) * SCALE
    pen.ellipse([*low, *high], fill=255)


def _rectangle(draw: Draw, length: float, aspect: float) -> np.ndarray:
    """Corners (4, 2) xy of a turned rectangle around the origin, px."""
    ahead = _heading(draw) * length / 2
    aside = np.array([-ahead[1], ahead[0]]) * aspect
    return np.stack([ahead + aside, ahead - aside, -ahead - aside, -ahead + aside])


def _heading(draw: Draw) -> np.ndarray:
    """Unit vector (2,), parallel to an axis in half of the cases."""
    angle = draw.integers(4) * np.pi / 2 if draw.random() < 0.5 else draw.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _tone(draw: Draw, surface: np.ndarray, least: float = 0.05) -> np.ndarray:
    """A colour (3,) that differs from the surface's mean by `least` to 0.5, darker in two of three cases."""
    step = draw.choice([-1, -1, 1]) * draw.uniform(least, 0.5)
    tint = draw.standard_normal(3) * draw.choice([0.0, 0.0, 0.15])
    return np.clip(surface.mean((0, 1)) + step + tint, 0, 1).astype(np.float32)


def _half_plane(draw: Draw, size_hw: Size) -> np.ndarray:
    """Coverage (H, W) of what lies beyond a random straight line."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    angle = draw.choice([0, 90, 180, 270]) + draw.normal(0, 3) if draw.random() < 0.6 else draw.uniform(0, 360)
    across = rows * np.sin(np.radians(angle)) + columns * np.cos(np.radians(angle))
    low, high = across.min(), across.max()
    return np.clip(across - (low + draw.uniform(0.35, 1.0) * (high - low)), 0, 1)
