"""Time of `stages.predict` from JPEG to PNG, and how much of it the network takes."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.formats.inputs import file_in, find_images, read
from stages.formats.measured_defects import record_of
from stages.formats.output_folder import write_files, write_output
from stages.runtime.network import Network


def from_jpeg_to_png(network: Network, folder: Path, out: Path) -> tuple[float, float]:
    """Total seconds, and seconds in the network: read, predict, measure the defects, write record and mask.

    As `python -m stages.predict --format masks` does per image, without imports and opening the model.
    """
    spent = 0.0

    def timed(tiles: np.ndarray) -> np.ndarray:
        nonlocal spent
        began = time.perf_counter()
        logits = network.run(tiles)
        spent += time.perf_counter() - began
        return logits

    watched = replace(network, run=timed)
    began = time.perf_counter()
    for source in find_images([str(folder)], out)[0]:
        sha256, image = read(source)
        record = record_of(watched, source, sha256, image)
        text = record.model_dump_json(indent=1) + "\n"
        write_output(file_in(out / "records", source.name), text.encode(), force=True)
        write_files(record, image, out, ["masks"], force=True)
    return time.perf_counter() - began, spent


def warmed(call: Callable[[], tuple[float, float]], rounds: int) -> tuple[float, float]:
    """The round with the median ratio, after one warm-up round."""
    torch.use_deterministic_algorithms(True)
    call()
    found = sorted((call() for _ in range(rounds)), key=lambda pair: pair[0] / pair[1])
    return found[len(found) // 2]
