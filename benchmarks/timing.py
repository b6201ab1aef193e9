"""Comparable times: all variants in turns, over many rounds; medians."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch

PAUSE_S = 0.03
"""Pause before each call, so that threads of the call before no longer spin on the cores."""


class Timing(NamedTuple):
    """Medians over the rounds: wall-clock seconds, and CPU seconds of all threads together. On a machine with other
    load only the second is meaningful."""

    wall_s: float
    cpu_s: float


def in_turns(variants: dict[Hashable, Callable[[], object]], rounds: int) -> dict[Hashable, Timing]:
    """Call every variant once to warm up, then once per round; every other round in reverse order."""
    for call in variants.values():
        call()
    taken: dict[Hashable, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds):
        names = list(variants)
        for name in reversed(names) if number % 2 else names:
            time.sleep(PAUSE_S)
            taken[name].append(_time(variants[name]))
    return {
        name: Timing(*(statistics.median(column) for column in zip(*rows, strict=True))) for name, rows in taken.items()
    }


def _time(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def as_usual(call: Callable) -> Callable:
    """`call` with PyTorch's default settings."""
    return _with(call, deterministic=False)


def as_pipeline(call: Callable) -> Callable:
    """`call` with PyTorch as `stages.compute.device` sets it."""
    return _with(call, deterministic=True)


def _with(call: Callable, deterministic: bool) -> Callable:
    def run(*arguments):
        torch.use_deterministic_algorithms(deterministic)
        return call(*arguments)

    return run
