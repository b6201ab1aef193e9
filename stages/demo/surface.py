"""What belongs on a sound surface and yet looks like a defect: seams, rivets, letters, shadows, vortex generators."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.demo.bodies import Body, Sun
from stages.demo.fields import between, blend, fractal, smoothstep

WORDS = ("NORDWIND", "AEOLUS", "V-27", "WTG 14", "No 3", "STORMVIK", "A2", "B 07", "DANGER", "500 kW", "MISTRAL")


def furnish(rng: np.random.Generator, body: Body, sun: Sun) -> None:
    """Fit a body with the parts that its kind carries, in place."""
    if body.kind == "blade":
        _furnish_blade(rng, body)
    else:
        for _ in range(rng.integers(1, 4)):
            ring_seam(rng, body)
        if rng.random() < (0.4 if body.kind == "nacelle" else 0.15):
            lettering(rng, body)
    if body.kind == "nacelle":
        for _ in range(rng.integers(1, 3)):
            long_seam(rng, body)
        if rng.random() < 0.5:
            ribs(rng, body)
    if rng.random() < 0.35:
        hatch(rng, body)
    for _ in range(rng.poisson(0.6)):
        rod_shadow(rng, body, sun)
    if rng.random() < 0.3:
        broad_shadow(rng, body)


def _furnish_blade(rng: np.random.Generator, body: Body) -> None:
    if rng.random() < 0.45:
        vortex_generators(rng, body)
    if rng.random() < 0.35:
        tape_band(rng, body)
    for _ in range(rng.integers(0, 3)):
        ring_seam(rng, body)
    if rng.random() < 0.3:
        long_seam(rng, body)
    if rng.random() < 0.1:
        lettering(rng, body)
    if rng.random() < 0.3:
        receptor(rng, body)


def ring_seam(rng: np.random.Generator, body: Body) -> None:
    """A joint around the tube, often a dark line with a lit lip, sometimes with rivets on either side."""
    offset = _ring(rng, body)
    width = rng.uniform(0.4, 1.6)
    strength, gap = rng.uniform(0.25, 0.9), between(rng, (0.10, 0.10, 0.11), (0.45, 0.45, 0.45))
    blend(body.albedo, strength * _line(offset, width), gap)
    blend(body.albedo, rng.uniform(0, 0.6) * _line(offset - width - 0.8, 0.5), (0.95, 0.95, 0.95))
    if rng.random() < 0.5:
        arc = np.arcsin(np.clip(body.across, -1, 1)) * np.median(body.edge[body.edge > 0])
        _dots(rng, body, offset - rng.choice([-1, 1]) * rng.uniform(4, 8), arc, rng.uniform(9, 24))


def long_seam(rng: np.random.Generator, body: Body) -> None:
    """A joint along the tube, with or without rivets."""
    offset = (body.across - rng.uniform(-0.8, 0.8)) * _half(body)
    blend(body.albedo, rng.uniform(0.2, 0.8) * _line(offset, rng.uniform(0.4, 1.2)), (0.22, 0.22, 0.23))
    if rng.random() < 0.5:
        _dots(rng, body, offset - rng.uniform(4, 7), body.along, rng.uniform(10, 28))


def lettering(rng: np.random.Generator, body: Body) -> None:
    """A painted word, dark or red, turned with the body."""
    size = float(np.clip(_half(body) * rng.uniform(0.2, 0.5), 10, 44))
    word = WORDS[rng.integers(len(WORDS))]
    image = Image.new("L", body.along.shape[::-1])
    stroke = round(size / 30)
    at = _spot(rng, body)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(at[::-1], word, 255, font, anchor="mm", stroke_width=stroke)
    turn = -np.degrees(body.angle)
    if abs((turn + 180) % 360 - 180) > 90:
        turn += 180
    image = image.rotate(turn, Image.Resampling.BICUBIC, center=at[::-1])
    paint = (0.02, 0.02, 0.025) if rng.random() < 0.7 else (0.35, 0.03, 0.04)
    wear = np.clip(0.96 - 0.04 * np.maximum(fractal(rng, body.along.shape, 9, 3), 0), 0, 1)
    blend(body.albedo, np.asarray(image, np.float32) / 255 * wear, paint)


def vortex_generators(rng: np.random.Generator, body: Body) -> None:
    """A row of small fins along the blade, each with its shadow."""
    pitch, height = rng.uniform(5, 13), rng.uniform(2.2, 5)
    offset = (body.across - rng.uniform(-0.6, 0.5)) * _half(body)
    phase = body.along / pitch
    near = np.abs(phase - np.round(phase)) * pitch
    row = smoothstep(-1, 1, body.along - rng.uniform(-260, 0)) * smoothstep(-1, 1, rng.uniform(60, 320) - body.along)
    lean = np.where(np.round(phase) % 2 == 0, 1, -1) * rng.uniform(0.0, 0.4)
    fin = _line(near - np.abs(lean * offset), 0.8) * smoothstep(-0.7, 0.7, height - np.abs(offset)) * row
    blend(body.albedo, 0.75 * fin, between(rng, (0.16, 0.16, 0.17), (0.42, 0.42, 0.42)))
    plate = smoothstep(-0.7, 0.7, height + 2 - np.abs(offset)) * row
    body.albedo *= 1 - rng.uniform(0, 0.05) * plate[..., None]


def tape_band(rng: np.random.Generator, body: Body) -> None:
    """A brown adhesive band around the blade, wrinkled and shiny."""
    offset = _ring(rng, body)
    alpha = smoothstep(-0.8, 0.8, rng.uniform(6, 22) - np.abs(offset + 0.2 * fractal(rng, offset.shape, 14, 2)))
    tone = np.clip(0.8 + 0.18 * fractal(rng, offset.shape, 16, 4), 0.3, 1.5)
    blend(body.albedo, 0.92 * alpha, tone[..., None] * between(rng, (0.24, 0.17, 0.09), (0.36, 0.30, 0.22)))


def receptor(rng: np.random.Generator, body: Body) -> None:
    """The metal disc that lightning is meant to strike."""
    y, x = _grid(body, _spot(rng, body))
    radius = rng.uniform(2, 5)
    distance = np.hypot(x, y)
    blend(body.albedo, np.clip(radius + 0.5 - distance, 0, 1), (0.42, 0.42, 0.44))
    blend(body.albedo, 0.5 * _line(distance - radius, 0.5), (0.15, 0.15, 0.15))


def hatch(rng: np.random.Generator, body: Body) -> None:
    """A rectangular cover: an outline with four screws, or a vent with slats."""
    long, wide = rng.uniform(14, 45), rng.uniform(8, 24)
    at = _spot(rng, body)
    a, b = _turned(body, at)
    outside = np.maximum(np.abs(a) - long, np.abs(b) - wide)
    blend(body.albedo, 0.7 * _line(outside, 0.7), (0.2, 0.2, 0.2))
    if body.kind != "blade" and rng.random() < 0.4:
        slats = smoothstep(-0.3, 0.5, np.sin(b * (2 * np.pi / rng.uniform(4, 7)))) * np.clip(0.5 - outside - 3, 0, 1)
        blend(body.albedo, 0.85 * slats, (0.05, 0.05, 0.06))
    else:
        screws = np.hypot(np.abs(a) - long + 3, np.abs(b) - wide + 3)
        blend(body.albedo, 0.8 * np.clip(1.6 - screws, 0, 1), (0.25, 0.25, 0.25))


def ribs(rng: np.random.Generator, body: Body) -> None:
    """Steps along the ridge: short dark bars, each with a thin shadow beside it."""
    pitch, length = rng.uniform(22, 46), rng.uniform(6, 14)
    offset = (body.across - rng.uniform(-0.75, -0.3)) * _half(body)
    phase = body.along / pitch
    bar = _line((phase - np.round(phase)) * pitch + 0.15 * offset, 1.0)
    blend(body.albedo, 0.9 * bar * smoothstep(-0.8, 0.8, length - np.abs(offset)), (0.03, 0.03, 0.035))
    cast = _line((phase - np.round(phase)) * pitch + 0.6 * offset, 0.8)
    body.sunlit *= 1 - 0.55 * cast * smoothstep(-0.8, 0.8, 1.4 * length - np.abs(offset - length))
    blend(body.albedo, 0.5 * _line(offset, 1.6), (0.9, 0.9, 0.9))


def rod_shadow(rng: np.random.Generator, body: Body, sun: Sun) -> None:
    """The shadow of a mast or an antenna: thin, bluish, bent over the curve."""
    at = _spot(rng, body)
    y, x = _grid(body, at)
    angle = np.arctan2(sun.toward_xy[1], sun.toward_xy[0]) + rng.normal(0, 0.5)
    along, off = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bent = off + rng.uniform(-16, 16) * body.across**2
    length = rng.uniform(25, 110)
    soft = _line(bent, rng.uniform(0.5, 2.0) * (1 - 0.4 * along / length)) * smoothstep(-2, 6, length - np.abs(along))
    body.sunlit *= 1 - rng.uniform(0.4, 0.9) * soft
    if rng.random() < 0.5:
        arm = _line(along - rng.uniform(-0.8, 0.8) * length, 1.0) * smoothstep(-2, 2, rng.uniform(6, 22) - np.abs(bent))
        body.sunlit *= 1 - 0.6 * arm


def broad_shadow(rng: np.random.Generator, body: Body) -> None:
    """The shadow of another blade or the tower: a wide band with a soft edge."""
    y, x = _grid(body, _spot(rng, body))
    angle = rng.uniform(0, 2 * np.pi)
    off = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-40, 40) * body.across**2
    soft = rng.uniform(1.5, 6)
    body.sunlit *= 1 - rng.uniform(0.6, 0.95) * smoothstep(-soft, soft, rng.uniform(15, 110) - np.abs(off))


def _line(offset: np.ndarray, half_width: float | np.ndarray) -> np.ndarray:
    """Coverage of a line: 1 on it, falling over one pixel at its sides; a thin line is faint, as on a sensor."""
    return np.clip(half_width + 0.5 - np.abs(offset), 0, np.minimum(1, 2 * half_width))


def _ring(rng: np.random.Generator, body: Body) -> np.ndarray:
    """Signed distance in px along the axis from a circle around the tube, seen a little from one end."""
    bulge = rng.uniform(-0.3, 0.3) * _half(body) * np.sqrt(np.maximum(1 - body.across**2, 0))
    return body.along - rng.uniform(-260, 260) - bulge


def _dots(rng: np.random.Generator, body: Body, offset: np.ndarray, position: np.ndarray, pitch: float) -> None:
    """Rivets or bolts: a row at `pitch` px along `position`, where `offset` is 0."""
    near = (position / pitch - np.round(position / pitch)) * pitch
    radius = rng.uniform(0.7, 1.7)
    alpha = np.clip(radius + 0.5 - np.hypot(near, offset), 0, min(1, radius))
    blend(body.albedo, rng.uniform(0.3, 0.9) * alpha, between(rng, (0.12, 0.11, 0.10), (0.45, 0.45, 0.45)))


def _half(body: Body) -> float:
    """Typical half width of the body, px."""
    return float(np.max(body.edge).clip(4))


def _spot(rng: np.random.Generator, body: Body) -> tuple[float, float]:
    """A random visible place (y, x) on the body, away from its edges; the picture's middle where it has none."""
    ys, xs = np.nonzero((body.visible > 0.99) & (np.abs(body.across) < 0.7))
    if not len(ys):
        return body.along.shape[0] / 2, body.along.shape[1] / 2
    pick = rng.integers(len(ys))
    return float(ys[pick]), float(xs[pick])


def _grid(body: Body, at_yx: tuple[float, float]) -> np.ndarray:
    """Distances down and right from a place, px, (2, H, W)."""
    grid = np.mgrid[: body.along.shape[0], : body.along.shape[1]].astype(np.float32)
    return grid - np.float32(at_yx)[:, None, None]


def _turned(body: Body, at_yx: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances along and off the body's axis from a place, px."""
    y, x = _grid(body, at_yx)
    cos, sin = np.float32(np.cos(body.angle)), np.float32(np.sin(body.angle))
    return x * cos + y * sin, y * cos - x * sin
