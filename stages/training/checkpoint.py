"""Checkpoints of a training: its whole state in one file with a checksum, written at a bounded share of its time."""

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
    """What `save_state` wrote, on the CPU; None without a file or, reported on stderr, with a damaged one."""
    payload = read_cached(path)
    try:
        return None if payload is None else torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, where the payload is no checkpoint
        if lacks_memory(error):
            raise
        print(f"{path}: no checkpoint ({type(error).__name__}), trained from the start", file=sys.stderr)
        return None


class Pace:
    """When the next checkpoint is due. The clock decides when one is written, never what is trained."""

    def __init__(self) -> None:
        self.cost, self.since = 0.0, time.monotonic()

    def due(self) -> bool:
        """Whether writing now keeps within SHARE; the first checkpoint is due at once."""
        return time.monotonic() - self.since >= self.cost / SHARE

    def save(self, path: Path, state: dict) -> None:
        """`save_state`, with its duration measured."""
        start = time.monotonic()
        save_state(path, state)
        self.since = time.monotonic()
        self.cost = self.since - start
