"""Human pixel truth: checked here once, then handed only to the stages that score."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stages.dataset.photos import inside
from stages.dataset.tables import encode_label_map
from stages.shell.errors import UserError

IGNORE = 255


def read_truth(root: Path, path: str, size_hw: tuple[int, int], n_classes: int) -> bytes | None:
    """The mask at `path` below `root` as the truth table's PNG; None where there is none.

    Masks are drawn on the upright photograph, of `size_hw`. Raises UserError when a mask is of another size, is no
    8-bit index or grey image, or holds a value that is neither background (0), class id + 1 nor ignored (255).
    """
    file = inside(root, path)
    if not file.is_file():
        return None
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            mode, labels = image.mode, np.array(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        raise UserError(f"{root / path}: not a readable mask: {error}") from None
    if mode not in ("L", "P"):
        raise UserError(f"{root / path}: a mask is an 8-bit index or grey PNG, this is of mode {mode}")
    if labels.shape != size_hw:
        raise UserError(
            f"{root / path}: mask is {labels.shape[1]} x {labels.shape[0]}, its photograph {size_hw[1]} x {size_hw[0]}"
        )
    if wrong := sorted(set(np.unique(labels).tolist()) - {*range(n_classes + 1), IGNORE}):
        allowed = f"0 (background), 1 to {n_classes} (class id + 1), 255 (ignored)"
        raise UserError(f"{root / path}: mask holds {wrong[0]}; allowed are {allowed}")
    return encode_label_map(labels)
