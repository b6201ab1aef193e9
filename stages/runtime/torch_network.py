"""The student in PyTorch, behind the same function of tiles as its exports, and the graph that is exported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages.compute.device import device_of, make_deterministic
from stages.networks.student import Segmenter, load_student


class Served(nn.Module):
    """The student from pixel values to logits: what an export holds.

    `images`: (B, S, S, 3) float32 RGB, 0 to 255, as a decoder gives them. Scaling, normalisation and the order of the
    axes are inside. Returns (B, K+1, S, S) float32 logits of the fine head: softmax comes after the tiles are blended.
    """

    def __init__(self, student: Segmenter) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images.permute(0, 3, 1, 2) / 255, with_binary=False).fine


def torch_runner(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """`Network.run` by PyTorch, in the precision of `stages.student.inference`: bfloat16 on a GPU, else float32."""
    make_deterministic()
    where = device_of(device)
    served = Served(load_student(folder)).to(where).eval()

    @torch.inference_mode()
    def run(tiles: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(tiles).to(where)
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            return served(images).float().cpu().numpy()

    return run
