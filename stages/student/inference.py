"""The network in PyTorch as a function of tiles, and the padding of training samples."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.student import tiling
from stages.student.segmenter import Segmenter
from stages.student.tiling import Prediction, RunTiles


class TileNetwork(nn.Module):
    """From pixel values to logits: what is run on tiles, and what an export holds.

    `images`: (B, S, S, 3) float32 RGB, 0 to 255, as a decoder gives them; scaling and normalisation are inside.
    Returns (B, K+1, S, S) logits of the fine head: softmax comes after the tiles are blended.
    """

    def __init__(self, student: Segmenter) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images.permute(0, 3, 1, 2) / 255, with_binary=False).fine


def tile_runner(student: Segmenter) -> RunTiles:
    """`student` on its device and in evaluation mode as a function of arrays: bfloat16 on a GPU, else float32."""
    network, device = TileNetwork(student), next(student.parameters()).device

    @torch.inference_mode()
    def run(tiles: np.ndarray) -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return network(torch.from_numpy(tiles).to(device)).float().cpu().numpy()

    return run


def predict(
    student: Segmenter, image: np.ndarray, watch: Callable[[slice, np.ndarray], None] | None = None
) -> Prediction:
    """Labels by argmax and confidence of `image`, (H, W, 3) uint8 RGB, as `student` is configured to view it.

    `watch`: see `tiling.predict`.
    """
    config = student.config
    return tiling.predict(tile_runner(student), image, len(config.names), config.view, watch=watch)


def pad_to(image: Tensor, size_px: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until both sides have at least `size_px`; see `tiling.pad_to`."""
    below, right = max(0, size_px - image.shape[-2]), max(0, size_px - image.shape[-1])
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image
