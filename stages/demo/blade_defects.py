"""The defects of the demo: their kinds, places, colours and contrast, and which pixels belong to them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stages.demo.camera import tone
from stages.demo.defect_outlines import Window, chip, crack, erosion, lightning, specks, stain, streak
from stages.demo.textures import blend, fractal, random_colour
from stages.demo.turbine_parts import Part, Sun

NAMES = ("dirt", "damage")
SUBTLE_BELOW = 22.0
"""Contrast (see `Defect`) below which a defect is subtle."""

INVISIBLE_BELOW = 8.0
"""Contrast below which a defect is not drawn at all."""

PLAIN_CONTRAST, SUBTLE_CONTRAST = (34, 130), (10, 20)
"""Ranges of the contrast aimed at; a drawn defect may have less where its colour is close to the surface's."""

LENS_PX = 0.65
"""Standard deviation of a typical lens blur."""

MIN_PIXELS = 5
TRIES = 8
"""Attempts to find a place for one defect."""

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Kind:
    """A kind of defect.

    outline: its shape, see `stages.demo.defect_outlines`; frequency: share of all defects
    size: of the log-normal distribution of its length in px: median, standard deviation of the logarithm, limits
    palette: colours, linear RGB; relief: how much light and shade its rims get; patchy: how uneven its opacity is
    """

    name: str
    class_id: int
    outline: Callable[[np.random.Generator, Window, float], np.ndarray]
    frequency: float
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
    """One defect as drawn. `contrast`: mean difference from the sound surface over its pixels, in levels of 255."""

    kind: str
    class_id: int
    contrast: float

    @property
    def subtle(self) -> bool:
        """Whether annotators may leave it without a box."""
        return self.contrast < SUBTLE_BELOW


def add_defects(
    rng: np.random.Generator, parts: list[Part], sun: Sun, count: int, subtle_share: float, contrast: float
) -> tuple[list[Defect], np.ndarray]:
    """Draw up to `count` defects onto `parts`, in place; fewer where no place for them is found.

    `subtle_share` of them are meant to be subtle; `contrast` is a factor on the contrast of all.
    Returns the defects and the owner map int16 (H, W): -1, or the index of the topmost defect. A pixel belongs to a
    defect that covers at least half of it on the sensor's grid, before the lens blurs it.
    """
    owner = np.full(parts[0].along.shape, -1, np.int16)
    defects: list[Defect] = []
    for _ in range(count):
        # the contrast is drawn before the place, so that further attempts do not favour defects that show well
        aim = contrast * rng.uniform(*(SUBTLE_CONTRAST if rng.random() < subtle_share else PLAIN_CONTRAST))
        for _ in range(TRIES):
            defect = _try_to_draw(rng, parts, sun, owner, len(defects), aim)
            if defect:
                defects.append(defect)
                break
    return defects, owner


def _try_to_draw(
    rng: np.random.Generator, parts: list[Part], sun: Sun, owner: np.ndarray, index: int, aim: float
) -> Defect | None:
    """One attempt to draw a random defect of contrast `aim` onto a part and, as `index`, into `owner`.

    None, with nothing changed, where there is no place or the defect would be invisible or hide another one.
    """
    kind = KINDS[rng.choice(len(KINDS), p=[kind.frequency for kind in KINDS])]
    median, spread, low, high = kind.size
    size = float(np.clip(median * np.exp(spread * rng.standard_normal()), low, high))
    areas = np.asarray([part.visible.sum() + 1.0 for part in parts], np.float64)
    part = parts[rng.choice(len(parts), p=areas / areas.sum())]
    centre_yx = _random_place(rng, part, kind)
    if centre_yx is None:
        return None
    where, window = _window(rng, part, kind, centre_yx, size)
    cover = kind.outline(rng, window, size) * part.visible[where]
    mask = cover >= 0.5
    if mask.sum() < MIN_PIXELS or _hides_others(owner[where], owner, mask):
        return None
    alpha, colour = _opacity_and_colour(rng, kind, cover, sun)
    sound, albedo = tone(part.shaded(where)), part.albedo[where].copy()
    # drawn once at full opacity to measure its contrast, then with the share of it that gives the contrast aimed at
    blend(part.albedo[where], alpha, colour)
    alpha *= min(1.0, aim / max(_contrast(sound, part, where, mask), 1e-6))
    part.albedo[where] = albedo
    blend(part.albedo[where], alpha, colour)
    contrast = _contrast(sound, part, where, mask)
    if contrast < INVISIBLE_BELOW:
        part.albedo[where] = albedo
        return None
    owner[where][mask] = index
    return Defect(kind.name, kind.class_id, contrast)


def _random_place(rng: np.random.Generator, part: Part, kind: Kind) -> tuple[int, int] | None:
    """A random visible pixel (y, x): on the leading edge for erosion, else away from the edges; None without one."""
    good = part.visible > 0.99
    good &= (part.edge < 4) & (part.across > 0) if kind.name == "erosion" else np.abs(part.across) < 0.92
    places = np.flatnonzero(good)
    if len(places) < 50:
        return None
    y, x = np.unravel_index(places[rng.integers(len(places))], good.shape)
    return int(y), int(x)


def _window(
    rng: np.random.Generator, part: Part, kind: Kind, centre_yx: tuple[int, int], size: float
) -> tuple[Slices, Window]:
    """The part of the image that a defect of this size can reach, and the defect's own coordinates there."""
    reach = int(0.75 * size + 8)
    height, width = part.along.shape
    rows = slice(max(centre_yx[0] - reach, 0), min(centre_yx[0] + reach + 1, height))
    columns = slice(max(centre_yx[1] - reach, 0), min(centre_yx[1] + reach + 1, width))
    y, x = np.mgrid[rows, columns].astype(np.float32)
    y, x = y - centre_yx[0] + rng.uniform(-0.5, 0.5), x - centre_yx[1] + rng.uniform(-0.5, 0.5)
    angle = _direction(rng, part, kind)
    along, off = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    where = rows, columns
    depth = np.where(part.across[where] > 0, part.edge[where], np.float32(1e3))
    return where, Window(along.astype(np.float32), off.astype(np.float32), depth)


def _direction(rng: np.random.Generator, part: Part, kind: Kind) -> float:
    """Angle of a defect's axis, radians from x toward y. Streaks run down, but on a blade, which turns, along or across
    it; erosion follows the leading edge; all other kinds have a random angle."""
    if kind.name == "erosion":
        return part.angle
    if kind.name == "streak":
        down = np.pi / 2 if part.kind != "blade" else part.angle + rng.choice([0, 0.5, 1, 1.5]) * np.pi
        return down + rng.normal(0, 0.12)
    return rng.uniform(0, 2 * np.pi)


def _opacity_and_colour(
    rng: np.random.Generator, kind: Kind, cover: np.ndarray, sun: Sun
) -> tuple[np.ndarray, np.ndarray]:
    """Uneven opacity (h, w) and colour (h, w, 3) of a defect. `cover`: its coverage (h, w); the rims of its relief are
    lit or in shade."""
    base = kind.palette[rng.integers(len(kind.palette))]
    base = random_colour(rng, np.multiply(base, 0.7), np.multiply(base, 1.35))
    texture = fractal(rng, cover.shape, 7, 3)
    slope_y, slope_x = np.gradient(cover)
    # a depression is dark at the rim toward the sun and bright at the opposite one
    rim = (slope_x * sun.toward_xy[0] + slope_y * sun.toward_xy[1]) * kind.relief * 2
    colour = base * (1 + 0.22 * texture[..., None]) - 0.5 * rim[..., None]
    alpha = cover * np.clip(0.95 - kind.patchy * (0.5 + 0.4 * texture), 0.3, 1)
    return alpha.astype(np.float32), np.clip(colour, 0.004, 0.9).astype(np.float32)


def _hides_others(window: np.ndarray, owner: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a new defect `mask` would hide more than a quarter of an older one, or have more than 40 % of its pixels
    on older ones.

    `window`: the part of the owner map `owner` where the mask is.
    """
    under = window[mask]
    hidden, counts = np.unique(under[under >= 0], return_counts=True)
    too_much = [count > 0.25 * np.count_nonzero(owner == index) for index, count in zip(hidden, counts, strict=True)]
    return any(too_much) or counts.sum() > 0.4 * mask.sum()


def _contrast(sound: np.ndarray, part: Part, where: Slices, mask: np.ndarray) -> float:
    """Mean difference, in levels of 255, from the levels `sound` over a defect's pixels, after the blur of a typical
    lens, which halves the contrast of a crack 1 px wide."""
    change = ndimage.gaussian_filter(tone(part.shaded(where)) - sound, (LENS_PX, LENS_PX, 0))
    return float(np.abs(change)[mask].mean())
