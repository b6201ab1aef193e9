"""The student on a GPU: bfloat16, eager and as CUDA graphs. Skipped on machines without one."""

import torch

from benchmarks.timing import in_turns
from stages.networks.student import Network as Student

BATCHES = (1, 32)


def rows(student: Student, rounds: int) -> list[dict]:
    """One row per form and batch size; images are on the GPU already, and logits stay there."""
    student, found = student.cuda().eval(), []
    fine = lambda images: student(images, with_binary=False).fine  # noqa: E731
    compiled = torch.compile(fine, mode="max-autotune")
    torch.use_deterministic_algorithms(False)
    for batch in BATCHES:
        size = student.config.view.size_px
        images = torch.rand(batch, 3, size, size, device="cuda")
        calls = {name: _synced(network, images) for name, network in (("eager", fine), ("CUDA graphs", compiled))}
        for name, taken in in_turns(calls, 5 * rounds).items():
            each = {"ms": round(1000 * taken.wall_s, 2), "images_a_second": round(batch / taken.wall_s, 1)}
            found.append({"name": f"{name}, {torch.cuda.get_device_name()}", "batch": batch, **each})
    return found


def _synced(network, images: torch.Tensor):
    @torch.inference_mode()
    def call() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            network(images)
        torch.cuda.synchronize()

    return call
