"""Distractors: parts of a sound surface that resemble defects, such as seams, rivets, letters and shadows.

Each function changes a `Part` in place: its albedo, or what sunlight reaches it.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.demo.textures import blend, fractal, random_colour, smoothstep
from stages.demo.turbine_parts import Part, Sun, along_and_off

WORDS = ("NORDWIND", "AEOLUS", "V-27", "WTG 14", "No 3", "STORMVIK", "A2", "B 07", "DANGER", "500 kW", "MISTRAL")


def add_distractors(rng: np.random.Generator, part: Part, sun: Sun) -> None:
    """Draw a random selection of the distractors that this kind of part can have."""
    if part.kind == "blade":
        _add_to_blade(rng, part)
    else:
        for _ in range(rng.integers(1, 4)):
            ring_seam(rng, part)
        if rng.random() < (0.4 if part.kind == "nacelle" else 0.15):
            lettering(rng, part)
    if part.kind == "nacelle":
        for _ in range(rng.integers(1, 3)):
            long_seam(rng, part)
        if rng.random() < 0.5:
            ribs(rng, part)
    if rng.random() < 0.35:
        hatch(rng, part)
    for _ in range(rng.poisson(0.6)):
        rod_shadow(rng, part, sun)
    if rng.random() < 0.3:
        broad_shadow(rng, part)


def _add_to_blade(rng: np.random.Generator, part: Part) -> None:
    if rng.random() < 0.45:
        vortex_generators(rng, part)
    if rng.random() < 0.35:
        tape_band(rng, part)
    for _ in range(rng.integers(0, 3)):
        ring_seam(rng, part)
    if rng.random() < 0.3:
        long_seam(rng, part)
    if rng.random() < 0.1:
        lettering(rng, part)
    if rng.random() < 0.3:
        receptor(rng, part)


def ring_seam(rng: np.random.Generator, part: Part) -> None:
    """A joint around the tube: a dark line, often with a bright edge, sometimes with a row of rivets."""
    offset = _ring(rng, part)
    width = rng.uniform(0.4, 1.6)
    strength, colour = rng.uniform(0.25, 0.9), random_colour(rng, (0.10, 0.10, 0.11), (0.45, 0.45, 0.45))
    blend(part.albedo, strength * _line(offset, width), colour)
    blend(part.albedo, rng.uniform(0, 0.6) * _line(offset - width - 0.8, 0.5), (0.95, 0.95, 0.95))
    if rng.random() < 0.5:
        around = np.arcsin(np.clip(part.across, -1, 1)) * np.median(part.edge[part.edge > 0])
        _rivets(rng, part, offset - rng.choice([-1, 1]) * rng.uniform(4, 8), around, rng.uniform(9, 24))


def long_seam(rng: np.random.Generator, part: Part) -> None:
    """A joint along the tube, with or without rivets."""
    offset = (part.across - rng.uniform(-0.8, 0.8)) * _half(part)
    blend(part.albedo, rng.uniform(0.2, 0.8) * _line(offset, rng.uniform(0.4, 1.2)), (0.22, 0.22, 0.23))
    if rng.random() < 0.5:
        _rivets(rng, part, offset - rng.uniform(4, 7), part.along, rng.uniform(10, 28))


def lettering(rng: np.random.Generator, part: Part) -> None:
    """A painted word, dark or red, along the part's axis."""
    size = float(np.clip(_half(part) * rng.uniform(0.2, 0.5), 10, 44))
    word = WORDS[rng.integers(len(WORDS))]
    text = Image.new("L", part.along.shape[::-1])
    centre_xy = _random_place(rng, part)[::-1]
    font = ImageFont.load_default(size)
    ImageDraw.Draw(text).text(centre_xy, word, 255, font, anchor="mm", stroke_width=round(size / 30))
    angle = -np.degrees(part.angle)
    if abs((angle + 180) % 360 - 180) > 90:  # never upside down
        angle += 180
    text = text.rotate(angle, Image.Resampling.BICUBIC, center=centre_xy)
    paint = (0.02, 0.02, 0.025) if rng.random() < 0.7 else (0.35, 0.03, 0.04)
    wear = np.clip(0.96 - 0.04 * np.maximum(fractal(rng, part.along.shape, 9, 3), 0), 0, 1)
    blend(part.albedo, np.asarray(text, np.float32) / 255 * wear, paint)


def vortex_generators(rng: np.random.Generator, part: Part) -> None:
    """A row of small fins along the blade, each with its shadow."""
    pitch, height = rng.uniform(5, 13), rng.uniform(2.2, 5)
    offset = (part.across - rng.uniform(-0.6, 0.5)) * _half(part)
    near = np.abs(_to_nearest(part.along, pitch))
    row = smoothstep(-1, 1, part.along - rng.uniform(-260, 0)) * smoothstep(-1, 1, rng.uniform(60, 320) - part.along)
    lean = np.where(np.round(part.along / pitch) % 2 == 0, 1, -1) * rng.uniform(0.0, 0.4)
    fin = _line(near - np.abs(lean * offset), 0.8) * smoothstep(-0.7, 0.7, height - np.abs(offset)) * row
    blend(part.albedo, 0.75 * fin, random_colour(rng, (0.16, 0.16, 0.17), (0.42, 0.42, 0.42)))
    plate = smoothstep(-0.7, 0.7, height + 2 - np.abs(offset)) * row
    part.albedo *= 1 - rng.uniform(0, 0.05) * plate[..., None]


def tape_band(rng: np.random.Generator, part: Part) -> None:
    """A brown adhesive band around the blade, wrinkled and shiny."""
    offset = _ring(rng, part)
    alpha = smoothstep(-0.8, 0.8, rng.uniform(6, 22) - np.abs(offset + 0.2 * fractal(rng, offset.shape, 14, 2)))
    tone = np.clip(0.8 + 0.18 * fractal(rng, offset.shape, 16, 4), 0.3, 1.5)
    blend(part.albedo, 0.92 * alpha, tone[..., None] * random_colour(rng, (0.24, 0.17, 0.09), (0.36, 0.30, 0.22)))


def receptor(rng: np.random.Generator, part: Part) -> None:
    """A lightning receptor: a metal disc."""
    y, x = _grid(part, _random_place(rng, part))
    radius = rng.uniform(2, 5)
    distance = np.hypot(x, y)
    blend(part.albedo, np.clip(radius + 0.5 - distance, 0, 1), (0.42, 0.42, 0.44))
    blend(part.albedo, 0.5 * _line(distance - radius, 0.5), (0.15, 0.15, 0.15))


def hatch(rng: np.random.Generator, part: Part) -> None:
    """A rectangular cover: an outline with four screws, or a vent with slats."""
    long, wide = rng.uniform(14, 45), rng.uniform(8, 24)
    y, x = _grid(part, _random_place(rng, part))
    along, off = along_and_off(x, y, part.angle)
    outside = np.maximum(np.abs(along) - long, np.abs(off) - wide)
    blend(part.albedo, 0.7 * _line(outside, 0.7), (0.2, 0.2, 0.2))
    if part.kind != "blade" and rng.random() < 0.4:
        slats = smoothstep(-0.3, 0.5, np.sin(off * (2 * np.pi / rng.uniform(4, 7)))) * np.clip(0.5 - outside - 3, 0, 1)
        blend(part.albedo, 0.85 * slats, (0.05, 0.05, 0.06))
    else:
        screws = np.hypot(np.abs(along) - long + 3, np.abs(off) - wide + 3)
        blend(part.albedo, 0.8 * np.clip(1.6 - screws, 0, 1), (0.25, 0.25, 0.25))


def ribs(rng: np.random.Generator, part: Part) -> None:
    """Steps along the part: short dark bars, each with a thin shadow beside it."""
    pitch, length = rng.uniform(22, 46), rng.uniform(6, 14)
    offset = (part.across - rng.uniform(-0.75, -0.3)) * _half(part)
    step = _to_nearest(part.along, pitch)
    bar = _line(step + 0.15 * offset, 1.0)
    blend(part.albedo, 0.9 * bar * smoothstep(-0.8, 0.8, length - np.abs(offset)), (0.03, 0.03, 0.035))
    cast = _line(step + 0.6 * offset, 0.8)
    part.sunlit *= 1 - 0.55 * cast * smoothstep(-0.8, 0.8, 1.4 * length - np.abs(offset - length))
    blend(part.albedo, 0.5 * _line(offset, 1.6), (0.9, 0.9, 0.9))


def rod_shadow(rng: np.random.Generator, part: Part, sun: Sun) -> None:
    """The shadow of a mast or an antenna: thin, bent by the curved surface, sometimes with a cross arm."""
    y, x = _grid(part, _random_place(rng, part))
    angle = np.arctan2(sun.toward_xy[1], sun.toward_xy[0]) + rng.normal(0, 0.5)
    along, off = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bent = off + rng.uniform(-16, 16) * part.across**2
    length = rng.uniform(25, 110)
    soft = _line(bent, rng.uniform(0.5, 2.0) * (1 - 0.4 * along / length)) * smoothstep(-2, 6, length - np.abs(along))
    part.sunlit *= 1 - rng.uniform(0.4, 0.9) * soft
    if rng.random() < 0.5:
        arm = _line(along - rng.uniform(-0.8, 0.8) * length, 1.0) * smoothstep(-2, 2, rng.uniform(6, 22) - np.abs(bent))
        part.sunlit *= 1 - 0.6 * arm


def broad_shadow(rng: np.random.Generator, part: Part) -> None:
    """The shadow of another blade or the tower: a wide band with a soft edge."""
    y, x = _grid(part, _random_place(rng, part))
    angle = rng.uniform(0, 2 * np.pi)
    off = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-40, 40) * part.across**2
    soft = rng.uniform(1.5, 6)
    part.sunlit *= 1 - rng.uniform(0.6, 0.95) * smoothstep(-soft, soft, rng.uniform(15, 110) - np.abs(off))


def _line(offset: np.ndarray, half_width: float | np.ndarray) -> np.ndarray:
    """Coverage of a line where `offset` (px) is 0: 1 inside, falling to 0 over one pixel; less than 1 if thin."""
    return np.clip(half_width + 0.5 - np.abs(offset), 0, np.minimum(1, 2 * half_width))


def _ring(rng: np.random.Generator, part: Part) -> np.ndarray:
    """Signed distance in px along the axis from a circle around the tube, seen a little from one end."""
    bulge = rng.uniform(-0.3, 0.3) * _half(part) * np.sqrt(np.maximum(1 - part.across**2, 0))
    return part.along - rng.uniform(-260, 260) - bulge


def _rivets(rng: np.random.Generator, part: Part, offset: np.ndarray, position: np.ndarray, pitch: float) -> None:
    """A row of rivets where `offset` is 0, one per `pitch` px of `position`; all in px."""
    radius = rng.uniform(0.7, 1.7)
    alpha = np.clip(radius + 0.5 - np.hypot(_to_nearest(position, pitch), offset), 0, min(1, radius))
    blend(part.albedo, rng.uniform(0.3, 0.9) * alpha, random_colour(rng, (0.12, 0.11, 0.10), (0.45, 0.45, 0.45)))


def _to_nearest(position: np.ndarray, pitch: float) -> np.ndarray:
    """Signed distance from the nearest multiple of `pitch`, px."""
    return (position / pitch - np.round(position / pitch)) * pitch


def _half(part: Part) -> float:
    """Greatest half width of the part, px."""
    return float(np.max(part.edge).clip(4))


def _random_place(rng: np.random.Generator, part: Part) -> tuple[float, float]:
    """A random visible place (y, x) on the part, away from its edges; the image's centre where it has none."""
    ys, xs = np.nonzero((part.visible > 0.99) & (np.abs(part.across) < 0.7))
    if not len(ys):
        return part.along.shape[0] / 2, part.along.shape[1] / 2
    pick = rng.integers(len(ys))
    return float(ys[pick]), float(xs[pick])


def _grid(part: Part, at_yx: tuple[float, float]) -> np.ndarray:
    """Distances down and right from a place, px, float32 (2, H, W)."""
    grid = np.mgrid[: part.along.shape[0], : part.along.shape[1]].astype(np.float32)
    return grid - np.float32(at_yx)[:, None, None]
