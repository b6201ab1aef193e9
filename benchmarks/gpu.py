"""The student on a GPU: eager in float32 and bfloat16, and bfloat16 as a CUDA graph and compiled."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import markdown
from benchmarks.timing import in_turns
from stages.networks.student import Network as Student

BATCHES = (1, 32)
PUBLISHED = {"ms": 6.2, "images_a_second": 161}
"""Of the paper's student at 518 px, batch 1, on a GPU that it does not name."""

AIMS = (("aim", 1, "at most 2", "–"), ("aim", 32, "–", "at least 1000"))
"""What the fastest form should reach at that size."""


def rows(student: Student, rounds: int, device: str = "cuda", compiled: bool = False) -> list[dict]:
    """One row per form and batch size; images are on the device already, and logits stay there.

    CUDA graphs are for GPUs alone; `compiled`: by torch.compile instead, which takes minutes.
    """

    def forward(seen: Tensor) -> Tensor:
        return student(seen, with_binary=False).fine

    torch.use_deterministic_algorithms(False)
    student, found = student.to(device).eval(), []
    size = student.config.view.size_px
    card = torch.cuda.get_device_name() if device == "cuda" else device
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, device=device)
        if compiled:  # anew per batch size: the second would be compiled for any size
            network = torch.compile(forward, mode="max-autotune")
            calls = {"compiled, bfloat16": eager(network, images, torch.bfloat16)}
        else:
            calls = {
                "eager, float32": eager(forward, images, torch.float32),
                "eager, bfloat16": eager(forward, images, torch.bfloat16),
            }
            if device == "cuda":
                calls["CUDA graph, bfloat16"] = graph(calls["eager, bfloat16"])
        synced = {name: _synced(call, device) for name, call in calls.items()}
        for name, taken in in_turns(synced, 5 * rounds).items():
            each = {"ms": round(1000 * taken.wall_s, 2), "images_a_second": round(batch / taken.wall_s, 1)}
            found.append({"name": f"{name}, {card}", "batch": batch, **each})
    return found


def eager(network: Callable, images: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """The forward pass on `images`, multiplying in `dtype`."""

    @torch.inference_mode()
    def call() -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32):
            return network(images)

    return call


def graph(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`call` recorded as a CUDA graph: its kernels without Python and without launching each."""
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):  # the first calls set things up, which must not be recorded
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        logits = call()

    def replay() -> Tensor:
        recorded.replay()
        return logits

    return replay


def _synced(call: Callable[[], Tensor], device: str) -> Callable[[], None]:
    def run() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def table(found: list[dict]) -> list[str]:
    """Lines of Markdown."""
    rows = [tuple(row.values()) for row in found]
    return markdown.table(("GPU", "batch", "ms", "images/s"), [*rows, ("published", 1, *PUBLISHED.values()), *AIMS])
