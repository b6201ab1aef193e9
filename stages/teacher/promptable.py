"""The contract of a teacher: a promptable network that turns an image and a box into four mask proposals.

`stages.teacher.prompting` calls it. `stages.teacher.sam` implements it for segment_anything,
`stages.teacher.transformers_sam` for transformers. An adapter resizes, normalises and pads by itself; everything after
the low-resolution logits is shared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from stages.teacher.windows import InputFrame


class Proposals(NamedTuple):
    """Four masks per box: one for an unambiguous prompt, then three for ambiguous ones. On the CPU, float32."""

    logits: Tensor  # (N, 4, h, w) over the whole square input, padding included; mask where > 0
    predicted_iou: Tensor  # (N, 4), the network's own estimate; may exceed 1


class Teacher(Protocol):
    """A promptable network for inference.

    `frame`: how a window of an image lies in the network's input. `libraries`: installed distributions on whose
    versions the proposals depend, in addition to torch, numpy and Pillow.
    """

    frame: InputFrame
    device: torch.device
    libraries: Sequence[str]

    def encode(self, windows: Sequence[np.ndarray]) -> Any:
        """Embeddings of N windows, each (h, w, 3) uint8 RGB, in any form that `decode` takes."""

    def decode(self, embeddings: Any, boxes_xyxy: np.ndarray) -> Proposals:
        """Proposals for `boxes_xyxy` (N, 4), in pixels of the input. `embeddings`: of N windows, or of one for all."""
