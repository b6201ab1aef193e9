"""Blade, tower and nacelle: tapered tubes with their own surface coordinates, and the light on them."""

from dataclasses import dataclass

import numpy as np

from stages.demo.fields import Size, between, fractal, noise, smoothstep


@dataclass(frozen=True)
class Sun:
    """Where light comes from: `toward_xy` in the picture (y down) and `frontal`, toward the camera: a unit vector."""

    toward_xy: tuple[float, float]
    frontal: float
    strength: float
    ambient: float


@dataclass
class Body:
    """One part of the turbine. Arrays are float32 (H, W), lengths in px.

    along: distance along the axis; across: -1..1 from edge to edge; edge: distance inside the nearer edge;
    cover: share of the pixel that the body fills; visible: cover less what stands in front; direct: sunlight that the
    surface would get in the open, sunlit: share of it that arrives; albedo, ambient: (H, W, 3), linear light.
    """

    kind: str
    angle: float
    along: np.ndarray
    across: np.ndarray
    edge: np.ndarray
    cover: np.ndarray
    visible: np.ndarray
    albedo: np.ndarray
    ambient: np.ndarray
    direct: np.ndarray
    sunlit: np.ndarray

    def shaded(self, where: tuple = (slice(None), slice(None))) -> np.ndarray:
        """Linear light that leaves the surface within the window `where`, (h, w, 3)."""
        light = self.ambient[where] + (self.direct[where] * self.sunlit[where])[..., None] * SUNLIGHT
        return self.albedo[where] * light


SUNLIGHT = np.float32((1.0, 0.97, 0.91))
SKYLIGHT = np.float32((0.80, 0.92, 1.12))
GROUNDLIGHT = np.float32((0.62, 0.64, 0.52))


def random_sun(rng: np.random.Generator) -> Sun:
    """High sun from a random side; one day in four is overcast."""
    azimuth = -np.pi / 2 + rng.uniform(-1.3, 1.3)
    frontal = rng.uniform(0.35, 0.85)
    flat = np.sqrt(1 - frontal**2)
    strength, ambient = (0.22, 0.72) if rng.random() < 0.25 else (rng.uniform(0.55, 0.72), rng.uniform(0.26, 0.40))
    return Sun((flat * np.cos(azimuth), flat * np.sin(azimuth)), frontal, strength, ambient)


def blade(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Body:
    """A blade across the picture: straight leading edge, tapering trailing edge, sometimes its tip or its root."""
    lean = rng.uniform(-0.55, 0.55)
    angle = lean + rng.choice([0, np.pi]) if rng.random() < 0.7 else lean + rng.choice([-1, 1]) * np.pi / 2
    along, off = _axes(rng, size_hw, angle, 0.22)
    off = off + rng.uniform(-1, 1) * 6e-5 * along**2
    half, taper = rng.uniform(42, 105), rng.uniform(0.02, 0.10)
    leading = half - 0.2 * taper * along
    trailing = half - taper * along
    end = rng.random()
    if end < 0.25:
        tip = rng.uniform(60, 260)
        rounding = np.sqrt(np.clip(1 - np.clip((along - tip + 2.2 * half) / (2.2 * half), 0, None) ** 2, 0, None))
        gone = 4.0 * (rounding == 0)
        leading, trailing = leading * rounding - gone, trailing * rounding - gone
    elif end < 0.55:
        trailing = trailing + rng.uniform(0.2, 0.8) * half * smoothstep(-120, 160, along)
    return _body(rng, "blade", angle, along, off, -trailing, leading, rng.uniform(1.3, 2.4), sun)


def tower(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Body:
    """A steel tube, nearly upright."""
    angle = np.pi / 2 + rng.uniform(-0.25, 0.25)
    along, off = _axes(rng, size_hw, angle, 0.3)
    half = rng.uniform(55, 150) + rng.uniform(0, 0.05) * along
    return _body(rng, "tower", angle, along, off, -half, half, 1.0, sun)


def nacelle(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Body:
    """A broad housing that fills much of the picture."""
    angle = rng.uniform(-0.6, 0.6)
    along, off = _axes(rng, size_hw, angle, 0.25)
    half = rng.uniform(110, 210)
    swell = 1 - rng.uniform(0.05, 0.4) * (along / 420) ** 2
    return _body(rng, "nacelle", angle, along, off, -half * swell, half * swell * rng.uniform(0.8, 1), 1.7, sun)


def _axes(rng: np.random.Generator, size_hw: Size, angle: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances along and off an axis at `angle` through a point near the picture's middle."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    y -= np.float32(size_hw[0] * (0.5 + rng.uniform(-spread, spread)))
    x -= np.float32(size_hw[1] * (0.5 + rng.uniform(-spread, spread)))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _body(rng, kind, angle, along, off, low, high, flatness, sun) -> Body:
    """A tube between the edges `low` and `high` (px off the axis); `flatness` 1 is round, more is flatter."""
    half = np.maximum((high - low) / 2, 0.5)
    across = np.clip((off - (high + low) / 2) / half, -1, 1)
    edge = np.minimum(high - off, off - low)
    tilt = np.sign(across) * np.abs(across) ** flatness
    front = np.sqrt(np.maximum(1 - tilt**2, 0))
    normal_x, normal_y = -np.sin(angle) * tilt, np.cos(angle) * tilt
    facing = normal_x * sun.toward_xy[0] + normal_y * sun.toward_xy[1] + front * sun.frontal
    up = (0.5 - 0.5 * normal_y)[..., None]
    # A glossy coat shows a bright band where it mirrors the sun (Blinn's half vector).
    halfway = np.float32((sun.toward_xy[0], sun.toward_xy[1], sun.frontal + 1)) / np.sqrt(2 + 2 * sun.frontal)
    mirrored = normal_x * halfway[0] + normal_y * halfway[1] + front * halfway[2]
    gloss = rng.uniform(0, 0.22) * np.maximum(mirrored, 0) ** rng.uniform(15, 60)
    ambient = sun.ambient * (up * SKYLIGHT + (1 - up) * GROUNDLIGHT)
    paint = between(rng, (0.70, 0.72, 0.74), (0.86, 0.86, 0.84))
    runs = noise(rng, along.shape, (rng.uniform(40, 120), rng.uniform(2, 5))) + fractal(rng, along.shape, 12, 3)
    clouds = fractal(rng, along.shape, 90, 4, rng.uniform(0.4, 2.5))
    grime = 1 + rng.uniform(0.008, 0.02) * clouds + rng.uniform(0.002, 0.009) * runs
    cover = np.clip(edge + 0.5, 0, 1).astype(np.float32)
    return Body(
        kind=kind,
        angle=float(angle),
        along=along,
        across=across.astype(np.float32),
        edge=edge.astype(np.float32),
        cover=cover,
        visible=cover,
        albedo=(paint * grime[..., None]).astype(np.float32),
        ambient=ambient.astype(np.float32),
        direct=(sun.strength * (np.maximum(facing, 0) ** 0.9 + gloss)).astype(np.float32),
        sunlit=np.ones_like(along),
    )
