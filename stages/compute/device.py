"""The device that networks run on, and how they compute there."""

import torch
from torch import Tensor, nn

from stages.common.errors import UserError


def device_of(name: str) -> torch.device:
    """`auto` is the GPU if there is one, else the CPU; other names are torch's own.

    Raises UserError for a device that torch does not know or that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not available ({reason}); auto, cpu or cuda") from None


def model_of(device: torch.device) -> str:
    """Name of the GPU's model, or the kind of CPU: for keys of results, which differ from model to model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, bfloat16" if multiplies_in_bf16(device) else device.type


def make_deterministic() -> None:
    """Make the same machine and versions give the same bytes. On a GPU, torch warns of operations that cannot do so."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # filling new memory only helps to find reads of uninitialised memory, and slows training down
    torch.utils.deterministic.fill_uninitialized_memory = False


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster there than float32: on GPUs, and on CPUs with AVX-512-BF16.

    Other CPUs emulate it, many times slower than float32.
    """
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device) -> torch.autocast:
    """A context in which networks multiply in bfloat16 where that is faster, and in float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_in_bf16(device))


class InFloat32:
    """Mixin of a convolution that multiplies in float32, whatever autocast says."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def prefer_fast_kernels(network: nn.Module, device: torch.device) -> None:
    """On a CPU that trains in bfloat16, avoid two of PyTorch's kernels whose backward passes are slow in that type.

    timm's attention becomes two matrix products and a softmax instead of the fused kernel; a convolution with one
    filter per channel multiplies in float32. On other devices nothing changes.
    """
    if device.type != "cpu" or not multiplies_in_bf16(device):
        return
    for part in network.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
        elif isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1:
            # another class and not a wrapper, which would rename the weights
            part.__class__ = type(f"{type(part).__name__}InFloat32", (InFloat32, type(part)), {})
