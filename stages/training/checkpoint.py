"""Checkpoints of a training: its whole state in one file with a checksum, written in a bounded share of the time."""

import io
import sys
import time
from pathlib import Path

import torch

from stages.common.errors import lacks_memory
from stages.common.workdir import read_cached, write_cached

SHARE = 0.01
"""Largest share of a training's time that is spent on writing checkpoints."""


def save_state(path: Path, state: dict) -> None:
    """Write `state`, of tensors, numbers, strings and containers of them, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_cached(path, buffer.getvalue())


def load_state(path: Path) -> dict | None:
    """What `save_state` wrote, on the CPU; None if there is no file, or if it is damaged, which stderr reports."""
    payload = read_cached(path)
    try:
        return None if payload is None else torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a payload that is no checkpoint
        if lacks_memory(error):
            raise
        print(f"{path}: no checkpoint ({type(error).__name__}): training from the start", file=sys.stderr)
        return None


class Pace:
    """Decides when the next checkpoint is due. The clock has no other effect on a training."""

    def __init__(self) -> None:
        self.cost, self.since = 0.0, time.monotonic()

    def due(self) -> bool:
        """Whether a checkpoint written now keeps the time for writing within SHARE; the first is due at once."""
        return time.monotonic() - self.since >= self.cost / SHARE

    def save(self, path: Path, state: dict) -> None:
        """`save_state`, with its duration measured."""
        start = time.monotonic()
        save_state(path, state)
        self.since = time.monotonic()
        self.cost = self.since - start
