"""The processes of one training, and how they exchange values: always in the order of their ranks.

    torchrun --nproc-per-node 2 -m stages.train data/plan/RUN.json ...
    BOXES2PIXELS_LAUNCHER="torchrun --nproc-per-node 2" dvc repro

With the second line every training restarts itself as in the first, so that the commands in dvc.yaml stay as they are.
Values are gathered, not reduced, because a sum depends on the order of its terms: each process gets the values of all
and adds them in the order of the ranks.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stages.common.errors import Stopped, UserError

T = TypeVar("T")

LAUNCHER = "BOXES2PIXELS_LAUNCHER"
"""Environment variable: the command, such as `torchrun --nproc-per-node 2`, that starts a training's processes."""


@dataclass(frozen=True)
class Processes:
    """Number `rank` of `size` processes. One process alone exchanges nothing.

    `arrived`: signals that were sent to this process and are held until all processes can stop at the same step.
    """

    rank: int = 0
    size: int = 1
    arrived: list[int] = field(default_factory=list)

    def share(self, count: int) -> range:
        """Numbers of the items of `count` that this process handles; `size` divides `count`."""
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def stacked(self, own: Tensor) -> Tensor:
        """`own` (k, n) of all processes, concatenated to (k * size, n) in the order of the ranks; the same in all."""
        if self.size == 1:
            return own
        with _lost_together():
            every = own.new_empty(self.size * own.shape[0], *own.shape[1:])
            dist.all_gather_into_tensor(every, own.contiguous())
        return every

    def total(self, counts: np.ndarray) -> np.ndarray:
        """Sum of int64 `counts` over the processes. Raises Stopped in all of them if a signal has arrived in one."""
        if self.size == 1:
            return counts
        flat = torch.from_numpy(np.append(counts.reshape(-1), self.stop_flag))
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        every = self.stacked(flat[None].to(device)).cpu()
        if signal := int(every[:, -1].max()):
            raise Stopped(signal)
        return every[:, :-1].sum(0).numpy().reshape(counts.shape)

    def of_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only, and return its result in all."""
        if self.size == 1:
            return make()
        values = [make() if self.rank == 0 else None]
        with _lost_together():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    @property
    def stop_flag(self) -> int:
        """Number of the signal that arrived first; 0: none."""
        return self.arrived[0] if self.arrived else 0


ALONE = Processes()


@contextmanager
def joined(device: torch.device, micro_batches: int) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun has started. Yields them and this one's device: with GPUs, one for each process.

    Without torchrun it is this process alone, on `device`.
    Raises UserError if their number does not divide `micro_batches`, or a machine has fewer GPUs than processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE, device
        return
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if micro_batches % size:
        allowed = ", ".join(str(number) for number in range(1, micro_batches + 1) if micro_batches % number == 0)
        raise UserError(
            f"train.micro_batches = {micro_batches}: {size} processes do not divide it, allowed are {allowed}"
        )
    gpus = torch.cuda.device_count() if device.type == "cuda" else None
    if gpus is not None:
        if (here := int(os.environ["LOCAL_WORLD_SIZE"])) > gpus:
            raise UserError(f"{here} processes on this machine, which has {gpus} GPUs: each process needs its own GPU")
        torch.cuda.set_device(local)
    with _lost_together():
        dist.init_process_group("gloo" if gpus is None else "nccl")
    try:
        yield Processes(rank, size), device if gpus is None else torch.device("cuda", local)
    finally:
        dist.destroy_process_group()


def relaunch(module: str, words: Sequence[str]) -> None:
    """If LAUNCHER is set and did not start this process, replace it by the launcher with `-m MODULE WORDS`."""
    launcher = shlex.split(os.environ.get(LAUNCHER, ""))
    if not launcher or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    try:
        os.execvp(launcher[0], [*launcher, "-m", module, *words])
    except OSError as error:
        sys.exit(f"error: {LAUNCHER} = {shlex.join(launcher)}: {error.strerror}")


@contextmanager
def _lost_together() -> Iterator[None]:
    """Raises UserError when another process has ended: without its micro-batches the result would be another."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"another process of this training has ended; run it again to resume ({reason})") from None
