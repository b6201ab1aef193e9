"""The interface of every network, from images to logits; how trained networks are saved and loaded.

A network is one file, `stages/networks/NAME.py`, chosen by `network.architecture: NAME`. It holds `Params` (a
`NetworkSection`), `Network` (a `Segmenter`) and `untrained(config, backbone)`, the network before its first step.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stages.common.errors import UserError, lacks_memory
from stages.common.files import new_folder, sha256_file
from stages.common.params import parse, write_sealed
from stages.student import plugins
from stages.student.config import CONFIG, NetworkConfig, read_student

WEIGHTS = "student.safetensors"


class Logits(NamedTuple):
    """Full-resolution logits: `fine` (B, K+1, H, W), 0 = background; `binary` (B, 2, H, W), None if not computed."""

    fine: Tensor
    binary: Tensor | None


class Segmenter(nn.Module):
    """Base of every network: RGB in [0, 1], (B, 3, H, W) float, to `Logits`."""

    def __init__(self, config: NetworkConfig, mean: list[float], std: list[float]) -> None:
        """`mean`, `std`: of the three input channels in [0, 1], as the encoder was trained with."""
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, with_binary: bool) -> Logits:
        """`with_binary=False` skips the binary head: only its loss reads it, predictions never do."""
        raise NotImplementedError

    def start_at(self, frequency: Tensor) -> None:
        """Make the first prediction the classes' `frequency`: (K+1,) shares of the pixels, none of them 0."""
        raise NotImplementedError

    def last_maps(self) -> list[nn.Parameter]:
        """The weights of the last layer of each head, which Muon leaves to AdamW."""
        raise NotImplementedError

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name to parameter of everything that training changes."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


def save_student(student: Segmenter, folder: Path) -> None:
    """Write weights and configuration into `folder`, whole or not at all."""
    with new_folder(folder) as part:
        data = save({key: value.contiguous() for key, value in sorted(student.state_dict().items())})
        # written by Python, not by safetensors, so that a full disk raises OSError
        (part / WEIGHTS).write_bytes(data)
        digest = {"weights_sha256": hashlib.sha256(data).hexdigest()}
        write_sealed(part / CONFIG, student.config.model_dump(mode="json") | digest)


def load_student(folder: Path) -> Segmenter:
    """A saved network in evaluation mode, on the CPU. Raises UserError for anything else.

    A configuration may come from anyone: a backbone larger than the file of weights is not built.
    """
    (config, digest), where, weights = read_student(folder), str(folder / CONFIG), folder / WEIGHTS
    module = plugins.load("networks", config.network.get("architecture"), f"{where}: network.architecture")
    parse(module.Params, config.network, where, "network")
    if not weights.is_file() or sha256_file(weights) != digest:
        raise UserError(f"{weights}: missing or damaged: not the weights that {CONFIG} was written with")
    try:
        if config.backbone:
            with torch.device("meta"):  # takes no memory
                size = sum(parameter.numel() for parameter in module.Network(config).parameters())
            if size > weights.stat().st_size:
                raise ValueError("its configuration describes a larger network than its weights")
        student = module.Network(config)
        student.load_state_dict(load_file(weights))
    except Exception as error:
        # timm raises nearly anything on arguments that do not fit together
        if isinstance(error, UserError) or lacks_memory(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{folder}: not a trained student: {reason}") from None
    return student.eval()
