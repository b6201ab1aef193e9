"""From linear light to a JPEG file: lens, sensor, tone curve, compression."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage


def tone(linear: np.ndarray) -> np.ndarray:
    """The sRGB curve (IEC 61966-2-1): linear light, 1 = white, to levels 0..255, float32, same shape."""
    light = np.clip(linear, 0, 1)
    return np.float32(255) * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def exposed(rng: np.random.Generator, linear: np.ndarray) -> np.ndarray:
    """The sensor's image of a scene in linear light, float32 (H, W, 3): uint8 RGB, same size.

    White balance, exposure, lens blur, rolled-off highlights, noise and sharpening vary at random.
    """
    balance = rng.uniform(0.97, 1.03, 3) * rng.uniform(0.82, 1.12)
    blur = rng.uniform(0.4, 0.85)
    light = ndimage.gaussian_filter(linear * balance.astype(np.float32), (blur, blur, 0))
    # highlights roll off smoothly instead of clipping at once
    levels = tone(np.where(light > 0.75, 0.75 + 0.25 * np.tanh((light - 0.75) / 0.25), light))
    grain = rng.standard_normal((*linear.shape[:2], 4), dtype=np.float32)
    strength = rng.uniform(0.7, 2.6) * (1.15 - levels.mean(2, keepdims=True) / 400)
    levels += strength * (grain[..., :1] + 0.5 * grain[..., 1:])
    sharpening = rng.uniform(0.2, 0.7)
    levels += sharpening * (levels - ndimage.gaussian_filter(levels, (1.0, 1.0, 0)))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def jpeg(rng: np.random.Generator, rgb: np.ndarray) -> bytes:
    """`rgb`, uint8 (H, W, 3), as a JPEG file of quality 86 to 96."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=int(rng.integers(86, 97)), subsampling="4:2:0")
    return buffer.getvalue()
