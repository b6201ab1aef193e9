"""Where the networks run."""

import torch


def device_of(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU; any other name is torch's own."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def make_deterministic() -> None:
    """Same machine, same versions, same bytes. On a GPU some backward passes have no deterministic form: warned of."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
