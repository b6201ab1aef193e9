"""Blade, tower and nacelle: tapered tubes with surface coordinates of their own, and the light on them."""

from dataclasses import dataclass

import numpy as np

from stages.demo.textures import Size, fractal, noise, random_colour, smoothstep

SUNLIGHT = np.float32((1.0, 0.97, 0.91))
SKYLIGHT = np.float32((0.80, 0.92, 1.12))
GROUNDLIGHT = np.float32((0.62, 0.64, 0.52))
"""Colours of the light, linear RGB."""


@dataclass(frozen=True)
class Sun:
    """Direction of the light, a unit vector: `toward_xy` in the image plane (y down) and `frontal`, to the camera.

    `strength` of the direct light and `ambient` light: 1 = white.
    """

    toward_xy: tuple[float, float]
    frontal: float
    strength: float
    ambient: float


@dataclass
class Part:
    """One part of the turbine. Arrays are float32 (H, W) unless stated; lengths in px; light is linear, 1 = white.

    kind: blade, tower or nacelle
    angle: of the axis in the image, radians from x toward y
    along: position along the axis
    across: position across it, -1 to 1 from edge to edge; on a blade 1 is the leading edge
    edge: distance inside the nearer edge, negative outside
    cover: share of the pixel that the part fills
    visible: `cover` without what other parts hide
    albedo: (H, W, 3), share of light that the surface reflects
    ambient: (H, W, 3), light from sky and ground
    direct: sunlight without shadows
    sunlit: share of `direct` that shadows leave
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


def random_sun(rng: np.random.Generator) -> Sun:
    """High sun from a random side; one day in four is overcast."""
    azimuth = -np.pi / 2 + rng.uniform(-1.3, 1.3)
    frontal = rng.uniform(0.35, 0.85)
    in_plane = np.sqrt(1 - frontal**2)
    strength, ambient = (0.22, 0.72) if rng.random() < 0.25 else (rng.uniform(0.55, 0.72), rng.uniform(0.26, 0.40))
    return Sun((in_plane * np.cos(azimuth), in_plane * np.sin(azimuth)), frontal, strength, ambient)


def blade(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Part:
    """A blade across the image: straight leading edge, tapering trailing edge, sometimes its tip or its root."""
    lean = rng.uniform(-0.55, 0.55)
    angle = lean + rng.choice([0, np.pi]) if rng.random() < 0.7 else lean + rng.choice([-1, 1]) * np.pi / 2
    along, off = _axes(rng, size_hw, angle, 0.22)
    off = off + rng.uniform(-1, 1) * 6e-5 * along**2  # the axis bends a little
    half, taper = rng.uniform(42, 105), rng.uniform(0.02, 0.10)
    leading = half - 0.2 * taper * along
    trailing = half - taper * along
    end = rng.random()
    if end < 0.25:  # the tip: an ellipse of half length 2.2 `half`, and nothing beyond `tip`
        tip = rng.uniform(60, 260)
        rounding = np.sqrt(np.clip(1 - np.clip((along - tip + 2.2 * half) / (2.2 * half), 0, None) ** 2, 0, None))
        beyond = 4.0 * (rounding == 0)  # px that push both edges past each other
        leading, trailing = leading * rounding - beyond, trailing * rounding - beyond
    elif end < 0.55:  # the root's side: the trailing edge widens to the maximum chord
        trailing = trailing + rng.uniform(0.2, 0.8) * half * smoothstep(-120, 160, along)
    return _tube(rng, "blade", angle, along, off, (-trailing, leading), rng.uniform(1.3, 2.4), sun)


def tower(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Part:
    """A steel tube, nearly upright."""
    angle = np.pi / 2 + rng.uniform(-0.25, 0.25)
    along, off = _axes(rng, size_hw, angle, 0.3)
    half = rng.uniform(55, 150) + rng.uniform(0, 0.05) * along
    return _tube(rng, "tower", angle, along, off, (-half, half), 1.0, sun)


def nacelle(rng: np.random.Generator, size_hw: Size, sun: Sun) -> Part:
    """A broad housing that fills much of the image."""
    angle = rng.uniform(-0.6, 0.6)
    along, off = _axes(rng, size_hw, angle, 0.25)
    half = rng.uniform(110, 210)
    swell = 1 - rng.uniform(0.05, 0.4) * (along / 420) ** 2
    return _tube(rng, "nacelle", angle, along, off, (-half * swell, half * swell * rng.uniform(0.8, 1)), 1.7, sun)


def _axes(rng: np.random.Generator, size_hw: Size, angle: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances along and off an axis at `angle`, px, float32 (H, W). The axis passes through a random point that is
    at most `spread` of the image's sides away from its centre."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    y -= np.float32(size_hw[0] * (0.5 + rng.uniform(-spread, spread)))
    x -= np.float32(size_hw[1] * (0.5 + rng.uniform(-spread, spread)))
    return along_and_off(x, y, angle)


def along_and_off(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates `x`, `y` float32 in axes turned by `angle`, float32."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _tube(
    rng: np.random.Generator,
    kind: str,
    angle: float,
    along: np.ndarray,
    off: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    flatness: float,
    sun: Sun,
) -> Part:
    """A painted tube between two `edges`, px off the axis; its cross section is round at `flatness` 1, else flatter."""
    low, high = edges
    half = np.maximum((high - low) / 2, 0.5)
    across = np.clip((off - (high + low) / 2) / half, -1, 1)
    edge = np.minimum(high - off, off - low)
    # unit normal of the surface: `tilt` across the axis, `front` to the camera
    tilt = np.sign(across) * np.abs(across) ** flatness
    front = np.sqrt(np.maximum(1 - tilt**2, 0))
    normal_x, normal_y = -np.sin(angle) * tilt, np.cos(angle) * tilt
    facing = normal_x * sun.toward_xy[0] + normal_y * sun.toward_xy[1] + front * sun.frontal
    up = (0.5 - 0.5 * normal_y)[..., None]
    # gloss: a bright band where the coat mirrors the sun (Blinn's half vector)
    halfway = np.float32((sun.toward_xy[0], sun.toward_xy[1], sun.frontal + 1)) / np.sqrt(2 + 2 * sun.frontal)
    mirrored = normal_x * halfway[0] + normal_y * halfway[1] + front * halfway[2]
    gloss = rng.uniform(0, 0.22) * np.maximum(mirrored, 0) ** rng.uniform(15, 60)
    ambient = sun.ambient * (up * SKYLIGHT + (1 - up) * GROUNDLIGHT)
    paint = random_colour(rng, (0.70, 0.72, 0.74), (0.86, 0.86, 0.84))
    runs = noise(rng, along.shape, (rng.uniform(40, 120), rng.uniform(2, 5))) + fractal(rng, along.shape, 12, 3)
    clouds = fractal(rng, along.shape, 90, 4, rng.uniform(0.4, 2.5))
    grime = 1 + rng.uniform(0.008, 0.02) * clouds + rng.uniform(0.002, 0.009) * runs
    cover = np.clip(edge + 0.5, 0, 1).astype(np.float32)
    return Part(
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
