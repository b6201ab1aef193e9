"""Building blocks of every texture of the demo: random fields, smooth steps, blending of colours."""

import numpy as np
from PIL import Image

Size = tuple[int, int]


def noise(rng: np.random.Generator, size_hw: Size, cell_hw: tuple[float, float]) -> np.ndarray:
    """Smooth noise, float32 (H, W), mean 0, standard deviation about 1; one independent value per `cell_hw` pixels."""
    (height, width), (cell_h, cell_w) = size_hw, cell_hw
    rows, columns = height / cell_h, width / cell_w
    grid = rng.standard_normal((int(rows) + 4, int(columns) + 4), dtype=np.float32)
    y, x = rng.random(2)
    box = (1 + x, 1 + y, 1 + x + columns, 1 + y + rows)
    # interpolation between independent values loses about a quarter of the standard deviation
    return 1.3 * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box=box))


def fractal(rng: np.random.Generator, size_hw: Size, cell: float, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Sum of octaves of `noise`, float32 (H, W). The first has cells of `cell` px; each octave halves the cells and
    weighs 0.55 of the one before. Cells are `stretch` times wider than high."""
    total = np.zeros(size_hw, np.float32)
    for octave in range(octaves):
        step = max(cell * 0.5**octave, 1.0)
        total += 0.55**octave * noise(rng, size_hw, (step, step * stretch))
    return total


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, the cubic 3 x^2 - 2 x^3 between."""
    x = np.clip((value - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


def blend(image: np.ndarray, alpha: np.ndarray, colour: object) -> None:
    """Blend `colour`, (3,) or (H, W, 3), over `image` (H, W, 3) in place, with opacity `alpha` (H, W) in [0, 1]."""
    image += alpha[..., None] * (np.asarray(colour, np.float32) - image)


def random_colour(rng: np.random.Generator, one: object, other: object) -> np.ndarray:
    """A random colour on the straight line between two, float32 (3,)."""
    share = rng.random()
    return np.asarray((1 - share) * np.asarray(one) + share * np.asarray(other), np.float32)
