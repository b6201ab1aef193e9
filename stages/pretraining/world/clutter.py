"""Clutter on a surface that is no defect: lines, cables, letters, rivets, fittings, shadows, other materials.

Each kind takes a surface, float32 (H, W, 3), and returns the changed one.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from stages.pretraining.world.materials import material
from stages.pretraining.world.primitives import SCALE, Rng, Size, blend, drawn

SCENERY = (0.05, 0.15, 0.3)
"""Contrasts of the grain of what lies behind an edge: grass and trees are rougher than any product."""


def clutter(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """`surface` with none to four kinds of clutter."""
    kinds = (_line, _line, _edge, _edge, _shadow, _cast, _letters, _rivets, _fitting, _fins, _cable, _band)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 4])):
        surface = kinds[rng.integers(len(kinds))](rng, surface)
    return surface


def _line(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A straight line or panel seam, sometimes embossed."""
    size = np.array(surface.shape[1::-1])
    ends, width = rng.uniform(-0.2, 1.2, (2, 2)) * size, rng.uniform(0.7, 4)
    if rng.random() < 0.5:
        ends[:, rng.integers(2)] = ends[0, 0] if rng.random() < 0.5 else ends[0, 1]
    return _painted(rng, surface, lambda pen: _stroke(pen, ends, width), relief=rng.random() < 0.3)


def _cable(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A smooth curve of constant width."""
    start, bend, end = rng.uniform(-0.2, 1.2, (3, 2)) * surface.shape[1::-1]
    along = np.linspace(0, 1, 24)[:, None]
    points = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
    width = rng.uniform(1, 5)
    return _painted(rng, surface, lambda pen: _stroke(pen, points, width))


def _band(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A painted stripe across the surface."""
    inside = _half_plane(rng, surface.shape[:2]) * (1 - _half_plane(rng, surface.shape[:2]))
    return blend(surface, inside * rng.uniform(0.3, 1), _tone(rng, surface))


def _edge(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A straight edge, beyond which lies another material, scenery or empty space."""
    side = _half_plane(rng, surface.shape[:2])
    other = np.zeros_like(surface) + 0.03 if rng.random() < 0.25 else material(rng, surface.shape[:2], SCENERY)
    return blend(surface, side, other)


def _shadow(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """Shade on one side of a straight line, with a soft border."""
    across = _half_plane(rng, surface.shape[:2])
    soft = np.asarray(Image.fromarray(across).resize((9, 9)).resize(surface.shape[1::-1], Image.Resampling.BICUBIC))
    return surface * (1 - rng.uniform(0.1, 0.5) * np.clip(soft, 0, 1)[..., None])


def _cast(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """The shadow of something outside the image: a dark, straight-sided patch with blurred sides."""
    centre = rng.uniform(-0.2, 1.2, 2) * surface.shape[1::-1]
    corners = centre + _rectangle(rng, rng.uniform(15, 90), rng.uniform(0.1, 1))
    shade = gaussian_filter(drawn(surface.shape[:2], lambda pen: _fill(pen, corners)), rng.uniform(0.5, 5))
    return surface * (1 - rng.uniform(0.1, 0.5) * shade[..., None])


def _letters(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A word of one to six random characters."""
    text = "".join(rng.choice(list("ABCDEFGHKLMNOPRSTXaeghnorst0123456789-"), rng.integers(1, 7)))
    height = rng.uniform(0.08, 0.6) * min(surface.shape[:2]) + 6
    at = tuple(rng.uniform(-0.1, 0.8, 2) * surface.shape[1::-1] * SCALE)
    font = ImageFont.load_default(height * SCALE)
    turn = rng.choice([0, 0, 90, 180, 270]) if rng.random() < 0.6 else rng.uniform(0, 360)
    return _painted(rng, surface, lambda pen: pen.text(at, text, fill=255, font=font), turn=turn, least=0.15)


def _rivets(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A row of equal round heads."""
    radius, pitch, start = rng.uniform(1, 4), rng.uniform(8, 30), rng.uniform(0, 1, 2) * surface.shape[1::-1]
    angle = rng.choice([0, np.pi / 2]) if rng.random() < 0.5 else rng.uniform(0, np.pi)
    along = pitch * np.array([np.cos(angle), np.sin(angle)])
    count = rng.integers(0, 9)
    centres = [start + step * along for step in range(-count, count + 1)]
    return _painted(rng, surface, lambda pen: [_disc(pen, xy, radius) for xy in centres], relief=rng.random() < 0.3)


def _fins(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A row of equal small triangles or bars, such as vortex generators or cooling slots."""
    piece = _rectangle(rng, rng.uniform(5, 16), rng.uniform(0.15, 0.6))
    piece = piece[:3] if rng.random() < 0.5 else piece
    step = _heading(rng) * rng.uniform(8, 30)
    start, count = rng.uniform(0, 1, 2) * surface.shape[1::-1], rng.integers(1, 9)
    pieces = [start + number * step + piece for number in range(-count, count + 1)]
    return _painted(rng, surface, lambda pen: [_fill(pen, each) for each in pieces], relief=rng.random() < 0.6)


def _fitting(rng: Rng, surface: np.ndarray) -> np.ndarray:
    """A plate, cover, lamp or bolt: a rectangle or disc with a rim, perhaps with rivets at its corners."""
    centre, length = rng.uniform(0, 1, 2) * surface.shape[1::-1], rng.uniform(8, 60)
    round_one, riveted = rng.random() < 0.4, rng.random() < 0.4
    corners = centre + _rectangle(rng, length, rng.uniform(0.4, 1))

    def shape(pen: ImageDraw.ImageDraw) -> None:
        _disc(pen, centre, length / 3) if round_one else _fill(pen, corners)

    surface = _painted(rng, surface, shape, relief=True)
    if riveted:
        inner = centre + 0.75 * (corners - centre)
        surface = _painted(rng, surface, lambda pen: [_disc(pen, xy, length / 20 + 0.5) for xy in inner])
    return surface


def _painted(
    rng: Rng, surface: np.ndarray, paint, turn: float = 0.0, relief: bool = False, least: float = 0.05
) -> np.ndarray:
    """`surface` with what `paint` draws (see `drawn`), in a colour that differs from the surface by at least `least`.

    `turn`: degrees; `relief` lights one side of the drawing and shades the other.
    """
    coverage = drawn(surface.shape[:2], paint, turn)
    result = blend(surface, coverage * rng.uniform(0.25, 1), _tone(rng, surface, least))
    if relief:
        shift = tuple(rng.choice([-1, 1], 2))
        slope = coverage - np.roll(coverage, shift, (0, 1))
        result = result + rng.uniform(0.05, 0.3) * slope[..., None]
    return result


def _stroke(pen: ImageDraw.ImageDraw, points_xy: np.ndarray, width: float) -> None:
    pen.line([tuple(point) for point in points_xy * SCALE], 255, max(1, round(width * SCALE)), joint="curve")


def _fill(pen: ImageDraw.ImageDraw, corners_xy: np.ndarray) -> None:
    pen.polygon([tuple(corner) for corner in corners_xy * SCALE], fill=255)


def _disc(pen: ImageDraw.ImageDraw, centre_xy: np.ndarray, radius: float) -> None:
    low, high = (centre_xy - radius) * SCALE, (centre_xy + radius) * SCALE
    pen.ellipse([*low, *high], fill=255)


def _rectangle(rng: Rng, length: float, aspect: float) -> np.ndarray:
    """Corners (4, 2) xy of a turned rectangle around the origin, px."""
    ahead = _heading(rng) * length / 2
    aside = np.array([-ahead[1], ahead[0]]) * aspect
    return np.stack([ahead + aside, ahead - aside, -ahead - aside, -ahead + aside])


def _heading(rng: Rng) -> np.ndarray:
    """Unit vector (2,), parallel to an axis in half of the cases."""
    angle = rng.integers(4) * np.pi / 2 if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _tone(rng: Rng, surface: np.ndarray, least: float = 0.05) -> np.ndarray:
    """A colour (3,) that differs from the surface's mean by `least` to 0.5, darker in two of three cases."""
    step = rng.choice([-1, -1, 1]) * rng.uniform(least, 0.5)
    tint = rng.standard_normal(3) * rng.choice([0.0, 0.0, 0.15])
    return np.clip(surface.mean((0, 1)) + step + tint, 0, 1).astype(np.float32)


def _half_plane(rng: Rng, size_hw: Size) -> np.ndarray:
    """Coverage (H, W) of what lies beyond a random straight line."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    angle = rng.choice([0, 90, 180, 270]) + rng.normal(0, 3) if rng.random() < 0.6 else rng.uniform(0, 360)
    across = rows * np.sin(np.radians(angle)) + columns * np.cos(np.radians(angle))
    low, high = across.min(), across.max()
    return np.clip(across - (low + rng.uniform(0.35, 1.0) * (high - low)), 0, 1)
