"""Defects: where they are, what they look like, how plainly they show, and which pixels are theirs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stages.demo.bodies import Body, Sun
from stages.demo.camera import tone
from stages.demo.fields import between, blend, fractal
from stages.demo.shapes import Window, chip, crack, erosion, lightning, specks, stain, streak

NAMES = ("dirt", "damage")
SUBTLE_BELOW = 22.0  # mean difference from the sound surface, in levels of 255
INVISIBLE_BELOW = 8.0
LENS_PX = 0.65  # deviation of a typical blur
MIN_PIXELS = 5
TRIES = 8


@dataclass(frozen=True)
class Kind:
    """A way to be defective. Sizes are long sides in px: median, spread of the logarithm, limits."""

    name: str
    class_id: int
    shape: Callable[[np.random.Generator, Window, float], np.ndarray]
    often: float
    size: tuple[float, float, float, float]
    palette: tuple[tuple[float, float, float], ...]
    relief: float
    patchy: float


DARK, RUST, BROWN = (0.02, 0.018, 0.016), (0.17, 0.045, 0.022), (0.13, 0.085, 0.05)
GREY, PRIMER, LAMINATE, ALGAE = (0.17, 0.17, 0.165), (0.30, 0.31, 0.32), (0.33, 0.25, 0.13), (0.11, 0.14, 0.05)
KINDS = (
    Kind("stain", 0, stain, 0.20, (25, 0.75, 9, 130), (BROWN, GREY, ALGAE), 0, 0.45),
    Kind("streak", 0, streak, 0.14, (50, 0.5, 20, 150), (DARK, BROWN, GREY), 0, 0.35),
    Kind("specks", 0, specks, 0.16, (19, 0.5, 7, 55), (DARK, BROWN), 0, 0.1),
    Kind("crack", 1, crack, 0.15, (42, 0.5, 14, 150), (DARK, (0.07, 0.06, 0.055)), 0, 0.2),
    Kind("chip", 1, chip, 0.22, (16, 0.7, 6, 90), (PRIMER, RUST, LAMINATE, DARK), 0.3, 0.25),
    Kind("erosion", 1, erosion, 0.07, (85, 0.35, 40, 170), (PRIMER, LAMINATE, DARK), 0.3, 0.3),
    Kind("lightning", 1, lightning, 0.06, (38, 0.4, 18, 90), (DARK,), 0, 0.15),
)


@dataclass(frozen=True)
class Defect:
    """One defect as drawn; `contrast` is the mean difference from the sound surface over its pixels, in levels."""

    kind: str
    class_id: int
    contrast: float

    @property
    def subtle(self) -> bool:
        return self.contrast < SUBTLE_BELOW


def add_defects(
    rng: np.random.Generator, bodies: list[Body], sun: Sun, count: int, subtle_share: float, contrast: float
) -> tuple[list[Defect], np.ndarray]:
    """Draw up to `count` defects onto `bodies`, in place; fewer where no place for them is found.

    Returns the defects and the owner map int16 (H, W): -1, or the index of the defect on top. A pixel belongs to a
    defect that covers at least half of it, on the sensor's grid, before the lens blurs it.
    """
    owner = np.full(bodies[0].along.shape, -1, np.int16)
    defects: list[Defect] = []
    for _ in range(count):
        # Subtle or plain is settled before the place, so that retrying does not favour plain ones.
        target = contrast * (rng.uniform(10, 20) if rng.random() < subtle_share else rng.uniform(34, 130))
        for _ in range(TRIES):
            defect = _try(rng, bodies, sun, owner, len(defects), target)
            if defect:
                defects.append(defect)
                break
    return defects, owner


def _try(rng, bodies: list[Body], sun: Sun, owner: np.ndarray, index: int, target: float) -> Defect | None:
    """One attempt to draw one defect; None, and nothing changed, where it would be invisible or hide another."""
    kind = KINDS[rng.choice(len(KINDS), p=[kind.often for kind in KINDS])]
    median, spread, low, high = kind.size
    size = float(np.clip(median * np.exp(spread * rng.standard_normal()), low, high))
    body = bodies[rng.choice(len(bodies), p=_shares(bodies))]
    at = _place(rng, body, kind)
    if at is None:
        return None
    where, window = _window(rng, body, kind, at, size)
    cover = kind.shape(rng, window, size) * body.visible[where]
    mine = cover >= 0.5
    if mine.sum() < MIN_PIXELS or _hides(owner, where, mine):
        return None
    alpha, colour = _look(rng, kind, cover, sun)
    sound = tone(body.shaded(where))
    before = body.albedo[where].copy()
    blend(body.albedo[where], alpha, colour)
    full = _difference(sound, body, where, mine)
    alpha *= min(1.0, target / max(full, 1e-6))
    body.albedo[where] = before
    blend(body.albedo[where], alpha, colour)
    shown = _difference(sound, body, where, mine)
    if shown < INVISIBLE_BELOW:
        body.albedo[where] = before
        return None
    owner[where][mine] = index
    return Defect(kind.name, kind.class_id, shown)


def _look(rng, kind: Kind, cover: np.ndarray, sun: Sun) -> tuple[np.ndarray, np.ndarray]:
    """Opacity (h, w) and colour (h, w, 3) of a defect of this coverage: patchy, and lit at the rims of its relief."""
    base = kind.palette[rng.integers(len(kind.palette))]
    base = between(rng, np.multiply(base, 0.7), np.multiply(base, 1.35))
    texture = fractal(rng, cover.shape, 7, 3)
    slope_y, slope_x = np.gradient(cover)
    rim = (slope_x * sun.toward_xy[0] + slope_y * sun.toward_xy[1]) * kind.relief * 2
    # A depression is dark at the rim that the sun comes over and bright at the one opposite.
    colour = base * (1 + 0.22 * texture[..., None]) - 0.5 * rim[..., None]
    alpha = cover * np.clip(0.95 - kind.patchy * (0.5 + 0.4 * texture), 0.3, 1)
    return alpha.astype(np.float32), np.clip(colour, 0.004, 0.9).astype(np.float32)


def _window(rng, body: Body, kind: Kind, at_yx: tuple[int, int], size: float) -> tuple[tuple[slice, slice], Window]:
    """The part of the picture that a defect can reach, and its own coordinates there."""
    reach = int(0.75 * size + 8)
    height, width = body.along.shape
    rows = slice(max(at_yx[0] - reach, 0), min(at_yx[0] + reach + 1, height))
    columns = slice(max(at_yx[1] - reach, 0), min(at_yx[1] + reach + 1, width))
    y, x = np.mgrid[rows, columns].astype(np.float32)
    y, x = y - at_yx[0] + rng.uniform(-0.5, 0.5), x - at_yx[1] + rng.uniform(-0.5, 0.5)
    angle = _direction(rng, body, kind)
    a, b = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    where = rows, columns
    depth = np.where(body.across[where] > 0, body.edge[where], np.float32(1e3))
    return where, Window(a.astype(np.float32), b.astype(np.float32), depth)


def _direction(rng, body: Body, kind: Kind) -> float:
    """Streaks run down, or along or across a blade that turns; erosion follows the edge; the rest lie anyhow."""
    if kind.name == "erosion":
        return body.angle
    if kind.name == "streak":
        down = np.pi / 2 if body.kind != "blade" else body.angle + rng.choice([0, 0.5, 1, 1.5]) * np.pi
        return down + rng.normal(0, 0.12)
    return rng.uniform(0, 2 * np.pi)


def _place(rng, body: Body, kind: Kind) -> tuple[int, int] | None:
    """A random visible pixel (y, x): on the leading edge for erosion, else anywhere but the very rim."""
    good = body.visible > 0.99
    good &= (body.edge < 4) & (body.across > 0) if kind.name == "erosion" else np.abs(body.across) < 0.92
    spots = np.flatnonzero(good)
    if len(spots) < 50:
        return None
    y, x = np.unravel_index(spots[rng.integers(len(spots))], good.shape)
    return int(y), int(x)


def _hides(owner: np.ndarray, where: tuple, mine: np.ndarray) -> bool:
    """Whether a new defect would take too much from an older one, or lie mostly on top of others."""
    under = owner[where][mine]
    taken, counts = np.unique(under[under >= 0], return_counts=True)
    rest = [count > 0.25 * np.count_nonzero(owner == index) for index, count in zip(taken, counts, strict=True)]
    return any(rest) or counts.sum() > 0.4 * mine.sum()


def _difference(sound: np.ndarray, body: Body, where: tuple, mine: np.ndarray) -> float:
    """Mean difference over a defect's own pixels as a lens would show it: a crack 1 px wide loses half."""
    change = ndimage.gaussian_filter(tone(body.shaded(where)) - sound, (LENS_PX, LENS_PX, 0))
    return float(np.abs(change)[mine].mean())


def _shares(bodies: list[Body]) -> np.ndarray:
    areas = np.asarray([body.visible.sum() + 1.0 for body in bodies], np.float64)
    return areas / areas.sum()
