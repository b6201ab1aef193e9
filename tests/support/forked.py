"""Two processes of one training, forked from this one, where the libraries are loaded already."""

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from stages.training.processes import Processes

PATIENCE_S = 600
"""On a busy machine."""


def in_two_processes(folder: Path, work: Callable[[Processes], object]) -> list[tuple[object, int]]:
    """What `work` gives in each of two processes joined by gloo (what it raises, as a text), and its exit status.

    `folder` is empty or does not exist yet.
    """
    folder.mkdir(exist_ok=True)
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            _run(folder, rank, work)
        children.append(child)
    until = time.monotonic() + PATIENCE_S
    status: dict[int, int] = {}
    while len(status) < 2:
        for child in set(children) - set(status):
            found, code = os.waitpid(child, os.WNOHANG)
            if found:
                status[child] = os.waitstatus_to_exitcode(code)
        assert time.monotonic() < until, "the processes wait for each other"
        time.sleep(0.01)
    results = [folder / str(rank) for rank in range(2)]
    return [
        (pickle.loads(path.read_bytes()) if path.exists() else None, status[child])
        for path, child in zip(results, children, strict=True)
    ]


def _run(folder: Path, rank: int, work: Callable[[Processes], object]) -> None:
    try:
        torch.set_num_threads(1)  # OpenMP does not survive a fork
        dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
        try:
            result = work(Processes(rank, 2))
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        (folder / str(rank)).write_bytes(pickle.dumps(result))
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
