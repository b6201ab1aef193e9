"""One optimiser step of the student and of its plain reference, without data loading: same loss, same optimiser.

Ours computes in bfloat16 where the training stage does, the reference in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.material import loss_of
from benchmarks.plain import plain_of
from stages.compute.device import prefer_fast_kernels
from stages.networks.student import Network as Student
from stages.student.segmenter import Logits
from stages.training.micro_batches import logits_of

CLIP_NORM = 1.0


def steps(student: Student, images: Tensor, labels: Tensor) -> dict[str, Callable[[], float]]:
    """Name to a call that makes one step on (B, 3, S, S) `images` in [0, 1] and (B, S, S) `labels`."""
    plain = plain_of(student)
    prefer_fast_kernels(student, images.device)
    return {
        "plain reference": step_of(plain, plain, images, labels),
        "ours": step_of(student, lambda seen: logits_of(student, seen), images, labels),
    }


def step_of(
    network: nn.Module, forward: Callable[[Tensor], Logits], images: Tensor, labels: Tensor
) -> Callable[[], float]:
    """Forward, self-correction, both losses, backward, clipping, AdamW; returns the loss."""
    trained = [parameter for parameter in network.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)

    def step() -> float:
        loss = sum(loss_of(forward(images), images, labels, progress=1.0).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        return loss.item()

    return step
