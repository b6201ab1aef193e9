"""Where the networks run."""

import torch
from torch import nn

from stages.common.errors import UserError


def device_of(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU; any other name is torch's own.

    Raises UserError for a device that torch does not know, or that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not to be had here ({reason}); auto, cpu or cuda") from None


def make_deterministic() -> None:
    """Same machine, same versions, same bytes. On a GPU some backward passes have no deterministic form: warned of."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # filling new memory shows whoever reads what was never written; a training step takes a seventh longer with it
    torch.utils.deterministic.fill_uninitialized_memory = False


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether networks train in bfloat16 there (autocast): on GPUs, and on CPUs that have instructions for it.

    Other CPUs would emulate it, many times slower than float32.
    """
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


def spell_out_attention(network: nn.Module, device: torch.device) -> None:
    """On a CPU, let timm's attention in `network` be two products and a softmax when it multiplies in bfloat16.

    PyTorch's fused form then takes six times as long at 65 tokens, forward and backward, and 1.2 times at 1370. In
    float32, and on a GPU, it stays.
    """
    if device.type == "cpu" and multiplies_in_bf16(device):
        for part in network.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False
