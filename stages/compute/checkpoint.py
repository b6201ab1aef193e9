"""Where a training goes on after a kill: its whole state in one file with a checksum, written at a bearable pace."""

import io
import time
from pathlib import Path

import torch

from stages.compute.workdir import keep, kept

SHARE = 0.01
"""Of a training's time that goes into its checkpoints: a state that takes half a second is written once a minute."""


def save_state(path: Path, state: dict) -> None:
    """Write `state`, of tensors, numbers, strings and containers of them, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    keep(path, buffer.getvalue())


def load_state(path: Path) -> dict | None:
    """What `save_state` wrote, on the CPU; None where there is nothing or, said on stderr, a damaged file."""
    payload = kept(path)
    return None if payload is None else torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


class Pace:
    """When the next checkpoint is due. The clock decides when one is written, never what is trained."""

    def __init__(self) -> None:
        self.cost, self.since = 0.0, time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last one; the first is due at once."""
        return time.monotonic() - self.since >= self.cost / SHARE

    def save(self, path: Path, state: dict) -> None:
        """`save_state`, timed."""
        start = time.monotonic()
        save_state(path, state)
        self.since = time.monotonic()
        self.cost = self.since - start
