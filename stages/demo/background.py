"""What lies behind the turbine: meadow, fields, sky. Linear light, float32 (H, W, 3), 1 = white in full sun."""

import numpy as np

from stages.demo.textures import Size, blend, fractal, noise, random_colour, smoothstep

HAZE = (0.50, 0.58, 0.66)


def background(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """A random background, sometimes with a mast; more often ground, seen from a drone, than sky."""
    kind = rng.choice(["meadow", "fields", "sky", "horizon"], p=[0.45, 0.2, 0.2, 0.15])
    image = {"meadow": meadow, "fields": fields, "sky": sky, "horizon": horizon}[kind](rng, size_hw)
    for _ in range(rng.poisson(0.35)):
        mast(rng, image)
    return image


def meadow(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """Grass: tussocks, blades and dry patches, sometimes the shadow of the tower."""
    tilt = rng.uniform(1.2, 2.6)
    blades = 0.5 * noise(rng, size_hw, (2.6, 1.7)) + 0.5 * noise(rng, size_hw, (6.5, 3.2))
    tussocks = fractal(rng, size_hw, rng.uniform(14, 26), 3, tilt)
    patches = fractal(rng, size_hw, 120, 3, tilt)
    blades += 0.35 * noise(rng, size_hw, (1.2, 1.0))
    tone = 0.42 + 0.11 * blades + 0.09 * tussocks + 0.07 * patches
    dark = random_colour(rng, (0.012, 0.022, 0.005), (0.022, 0.032, 0.010))
    light = random_colour(rng, (0.085, 0.130, 0.022), (0.140, 0.150, 0.050))
    image = _ramp(tone, dark, light)
    dry = smoothstep(0.6, 1.8, fractal(rng, size_hw, 70, 4, tilt) + rng.uniform(-1.2, 0.4))
    blend(image, 0.6 * dry, _ramp(tone, dark * 1.5, np.float32((0.20, 0.17, 0.09))))
    if rng.random() < 0.25:
        across = _distance_to_line(rng, size_hw)
        image *= 1 - 0.6 * (1 - smoothstep(0, 7, np.abs(across) - rng.uniform(8, 30)))[..., None]
    return image


def fields(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """Meadow, crop rows and soil side by side, with a track or a hedge between them."""
    image = meadow(rng, size_hw)
    for _ in range(rng.integers(1, 4)):
        across = _distance_to_line(rng, size_hw)
        across += 3 * fractal(rng, size_hw, 60, 3)
        blend(image, smoothstep(-2, 2, across), _crop(rng, size_hw, across))
        width = rng.uniform(2, 14)
        border = 1 - smoothstep(width - 2, width + 3, np.abs(across))
        texture = 0.5 + 0.05 * fractal(rng, size_hw, 7, 4)
        track = random_colour(rng, (0.24, 0.21, 0.16), (0.30, 0.27, 0.24))
        colour = track if rng.random() < 0.5 else np.float32((0.016, 0.026, 0.010))
        blend(image, 0.9 * border, texture[..., None] * 2 * colour)
    return image


def sky(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """Blue with clouds, or overcast."""
    height = np.linspace(0, 1, size_hw[0], dtype=np.float32)[:, None] * np.ones(size_hw, np.float32)
    zenith = random_colour(rng, (0.09, 0.22, 0.50), (0.22, 0.38, 0.66))
    image = _ramp(rng.uniform(0, 0.4) + 0.5 * height, zenith, np.float32(HAZE))
    cloud = fractal(rng, size_hw, rng.uniform(110, 240), 6, rng.uniform(1.2, 2.4))
    opacity = smoothstep(-0.3, 1.3, cloud + rng.uniform(-1.4, 1.8))
    brightness = np.clip(0.72 + 0.16 * fractal(rng, size_hw, 130, 4, 1.6), 0.3, 1.05)
    blend(image, 0.95 * opacity, brightness[..., None] * np.float32((0.78, 0.81, 0.86)))
    return image


def horizon(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """Fields below and sky above, with haze where they meet."""
    image, above = fields(rng, size_hw), sky(rng, size_hw)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    skyline = noise(rng, (1, size_hw[1]), (1, 80))[0] + 0.25 * noise(rng, (1, size_hw[1]), (1, 5))[0]
    below = y - size_hw[0] * rng.uniform(0.15, 0.7) - rng.uniform(-0.12, 0.12) * (x - size_hw[1] / 2) - skyline * 2
    blend(image, 0.85 * np.exp(-np.maximum(below, 0) / rng.uniform(30, 90)), HAZE)
    blend(image, 1 - smoothstep(-1, 1, below), above)
    return image


def mast(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw a thin pole with a cross arm and a cup anemometer at both ends of it over `image`, in place."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    foot, top, lean = rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.75) * height, rng.uniform(-0.15, 0.15)
    down = y - top
    off = x - foot - lean * down
    radius, light = rng.uniform(0.8, 2.6), rng.uniform(0.25, 0.7)
    pole = np.clip(radius + 0.5 - np.abs(off), 0, 1) * (down > 0)
    blend(image, pole, light * (1 - 0.35 * np.clip(off / radius, -1, 1))[..., None] * np.ones(3, np.float32))
    reach, level = rng.uniform(8, 45), rng.uniform(4, 30)
    arm = np.clip(0.6 * radius + 0.5 - np.abs(down - level), 0, 1) * (np.abs(off) < reach)
    blend(image, arm, light * 0.85)
    for side in (-1, 1):
        cup = np.clip(rng.uniform(2, 4.5) + 0.5 - np.hypot(off - side * reach, (down - level + 5) / 1.4), 0, 1)
        blend(image, cup, rng.choice([0.04, 0.3, 0.6]))


def _crop(rng: np.random.Generator, size_hw: Size, across: np.ndarray) -> np.ndarray:
    """Soil, stubble or young corn in rows parallel to the field's border; `across`: distance from it, px."""
    rows = np.sin(across * (2 * np.pi / rng.uniform(5, 16)) + 0.5 * fractal(rng, size_hw, 40, 2))
    tone = 0.45 + rng.uniform(0, 0.2) * rows + 0.12 * fractal(rng, size_hw, 9, 3) + 0.08 * fractal(rng, size_hw, 90, 2)
    dark = random_colour(rng, (0.030, 0.045, 0.012), (0.070, 0.050, 0.030))
    light = random_colour(rng, (0.110, 0.160, 0.035), (0.270, 0.210, 0.120))
    return _ramp(tone, dark, light)


def _distance_to_line(rng: np.random.Generator, size_hw: Size) -> np.ndarray:
    """Signed distance in px from a random line through the image, float32 (H, W)."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    through_y, through_x = rng.uniform(0.1, 0.9, 2) * size_hw
    return ((x - through_x) * np.cos(angle) + (y - through_y) * np.sin(angle)).astype(np.float32)


def _ramp(tone: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) between `dark` at tone 0 and `light` at tone 1, beyond it up to 1.3."""
    return dark + np.clip(tone, 0, 1.3)[..., None] * (light - dark)
