"""From an image of any size to class probabilities at that size."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.networks.student import Segmenter
from stages.student.tiles import TILES_AT_ONCE, taper, tile_starts


@torch.inference_mode()
def predict(student: Segmenter, photo: np.ndarray) -> np.ndarray:
    """Class probabilities of the fine head.

    `photo`: (H, W, 3) uint8 RGB. Returns (K+1, H, W) float32 summing to 1 over classes, 0 = background.
    With view.scale `stretch` the whole image is resized to the network's square (the published way) and
    the logits are resized back; with `native` it is cut into overlapping tiles at its own scale, blended.
    """
    device = next(student.parameters()).device
    image = torch.from_numpy(photo).to(device).permute(2, 0, 1)[None].float() / 255
    if student.config.view.scale == "stretch":
        logits = _stretched_logits(student, image)
    else:
        logits = _tiled_logits(student, image)
    return logits.softmax(dim=1)[0].cpu().numpy()


def to_square(image: Tensor, size_px: int) -> Tensor:
    """(B, 3, H, W) stretched to (B, 3, size, size), bilinear with antialiasing. Training uses the very same."""
    return F.interpolate(image, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False)


def _stretched_logits(student: Segmenter, image: Tensor) -> Tensor:
    logits = _forward(student, to_square(image, student.config.view.size_px))
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


def _tiled_logits(student: Segmenter, image: Tensor) -> Tensor:
    tile = student.config.view.size_px
    height, width = image.shape[-2:]
    image = pad_to(image, tile)
    weight = torch.from_numpy(taper(tile)).to(image.device)
    corners = [(top, left) for top in tile_starts(image.shape[-2], tile) for left in tile_starts(image.shape[-1], tile)]
    total = image.new_zeros(1, len(student.config.names) + 1, *image.shape[-2:])
    covered = image.new_zeros(1, 1, *image.shape[-2:])
    for start in range(0, len(corners), TILES_AT_ONCE):
        chunk = corners[start : start + TILES_AT_ONCE]
        tiles = torch.cat([image[..., top : top + tile, left : left + tile] for top, left in chunk])
        for (top, left), logits in zip(chunk, _forward(student, tiles), strict=True):
            total[..., top : top + tile, left : left + tile] += logits * weight
            covered[..., top : top + tile, left : left + tile] += weight
    return (total / covered)[..., :height, :width]


def pad_to(image: Tensor, size_px: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until both sides have at least `size_px`."""
    below, right = max(0, size_px - image.shape[-2]), max(0, size_px - image.shape[-1])
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def _forward(student: Segmenter, images: Tensor) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        return student(images, with_binary=False).fine.float()
