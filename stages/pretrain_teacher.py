"""Make the embedded teacher: a small Sam, trained on the procedural world to turn a box into a mask.

    python -m stages.pretrain_teacher --out data/weights/embedded/teacher --metrics metrics/pretrain_teacher.json

Two CPU cores take about three quarters of an hour. Not part of the default pipeline: its result is committed.
"""

import copy
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from scipy.stats import spearmanr
from segment_anything.modeling import Sam
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stages.procedural.prompts import Prompt, prompt
from stages.shell.device import device_of
from stages.shell.errors import run
from stages.shell.files import write_json
from stages.shell.progress import progress
from stages.teacher.candidates import predict_masks
from stages.teacher.sam import TeacherConfig, build_teacher, load_teacher, save_teacher

CONFIG = TeacherConfig(
    name="embedded",
    image_size=128,
    patch_size=8,
    embed_dim=128,
    depth=6,
    num_heads=4,
    global_attn_indexes=[1, 3, 5],
    window_size=8,
    prompt_dim=96,
    decoder_heads=4,
    decoder_mlp_dim=192,
    iou_head_dim=96,
    source="stages/pretrain_teacher.py: procedural world only, no photograph, no human label",
)

HELD_OUT_SEED = 1_000_003
"""Never a training seed: the held-out prompts are the same for every training."""


class Prompts(Dataset):
    """Prompt i of the procedural world under `seed`, as tensors: image (3, S, S) in 0..255, size, box, mask, kind."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        made: Prompt = prompt(np.random.default_rng([self.seed, number]), CONFIG.image_size)
        image = torch.from_numpy(made.image).permute(2, 0, 1).float()
        return (
            image,
            torch.tensor(made.size_hw),
            torch.from_numpy(made.box_xyxy),
            torch.from_numpy(made.mask),
            made.kind,
        )


def forward(sam: Sam, images: Tensor, sizes_hw: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 4, S, S) at the input's size and predicted IoU (B, 4) of all four mask tokens, one box an image."""
    images = (images - sam.pixel_mean) / sam.pixel_std
    side = torch.arange(images.shape[-1], device=images.device)
    inside = (side[None, :, None] < sizes_hw[:, 0, None, None]) & (side[None, None, :] < sizes_hw[:, 1, None, None])
    embeddings = sam.image_encoder(images * inside[:, None])
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    masks, scores = predict_masks(sam.mask_decoder, embeddings, sam.prompt_encoder.get_dense_pe(), sparse, dense)
    return F.interpolate(masks, images.shape[-2:], mode="bilinear", align_corners=False), scores


def mask_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """20 focal + Dice of each candidate, as SAM was trained: logits (B, C, S, S), masks (B, S, S) -> (B, C)."""
    target = masks[:, None].float().expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - torch.exp(-cross_entropy)) ** 2 * cross_entropy).mean((-1, -2))
    p = logits.sigmoid()
    overlap, total = (p * target).sum((-1, -2)), (p + target).sum((-1, -2))
    return 20 * focal + 1 - (2 * overlap + 1) / (total + 1)


def iou(logits: Tensor, masks: Tensor) -> Tensor:
    """(B, C) IoU of the thresholded candidates with (B, S, S) masks."""
    predicted, target = logits > 0, masks[:, None]
    return (predicted & target).sum((-1, -2)) / (predicted | target).sum((-1, -2)).clamp(min=1)


def loss(sam: Sam, images: Tensor, sizes_hw: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
    """The best of the three candidates learns the mask, so does the single one; all four learn to predict their IoU."""
    logits, scores = forward(sam, images, sizes_hw, boxes)
    each = mask_losses(logits, masks)
    judged = F.mse_loss(scores, iou(logits.detach(), masks))
    # a little of every candidate's loss keeps those alive that are never the best
    return each[:, 0].mean() + each[:, 1:].min(1).values.mean() + 0.05 * each[:, 1:].mean() + judged


@torch.no_grad()
def held_out(sam: Sam, count: int, device: torch.device) -> dict[str, float]:
    """Mean IoU by kind of shape with the candidate of highest predicted IoU, and how well that prediction ranks."""
    sam.eval()
    kinds, chosen_iou, predicted = [], [], []
    for images, sizes_hw, boxes, masks, kind in DataLoader(Prompts(HELD_OUT_SEED, count), 32):
        logits, scores = forward(sam, images.to(device), sizes_hw.to(device), boxes.to(device))
        best = scores[:, 1:].argmax(1, keepdim=True) + 1
        chosen_iou += iou(logits, masks.to(device)).gather(1, best)[:, 0].tolist()
        predicted += scores.gather(1, best)[:, 0].tolist()
        kinds += kind
    sam.train()
    values = np.array(chosen_iou)
    by_kind = {f"iou_{k}": round(float(values[np.array(kinds) == k].mean()), 4) for k in sorted(set(kinds))}
    rank = float(spearmanr(predicted, chosen_iou).statistic)
    return {"prompts": count, "iou": round(float(values.mean()), 4), "spearman": round(rank, 4), **by_kind}


def main(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("data/weights/embedded/teacher"),
    metrics: Annotated[Path, typer.Option(help="JSON file for the held-out scores.")] = Path(
        "metrics/pretrain_teacher.json"
    ),
    steps: Annotated[int, typer.Option(min=1)] = 3000,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    lr: Annotated[float, typer.Option(min=0)] = 8e-4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between snapshots.")] = 500,
    held_out_prompts: Annotated[int, typer.Option(min=1)] = 512,
    start: Annotated[Path | None, typer.Option(help="Folder of weights to go on from.")] = None,
    workers: Annotated[int, typer.Option(min=0)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the embedded teacher on procedural prompts; weights are an average over the last steps (EMA)."""
    torch.manual_seed(seed)
    where = device_of(device)
    sam = build_teacher(CONFIG) if start is None else load_teacher(start)[0].requires_grad_(True)
    sam = sam.to(where).train()
    averaged = copy.deepcopy(sam)
    optimizer = torch.optim.AdamW(sam.parameters(), lr=lr, weight_decay=0.01)
    warmup = 100
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    loader = DataLoader(
        Prompts(seed, steps * batch_size), batch_size, num_workers=workers, prefetch_factor=4 if workers else None
    )
    bar = progress(loader, "pretrain teacher", "step", total=steps)
    for step, (images, sizes_hw, boxes, masks, _) in enumerate(bar, start=1):
        value = loss(sam, images.to(where), sizes_hw.to(where), boxes.to(where), masks.to(where))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.998, 1 - 1 / (step + 1))
        for mean, current in zip(averaged.parameters(), sam.parameters(), strict=True):
            mean.data.lerp_(current.data, 1 - decay)
        bar.set_postfix(loss=f"{value.item():.3f}", refresh=False)
        if step % save_every == 0 or step == steps:
            scores = {"steps": step, **held_out(averaged, held_out_prompts, where)}
            bar.write(str(scores))
            save_teacher(out, averaged, CONFIG, torch.float16)
            write_json(metrics, scores)


if __name__ == "__main__":
    run(main)
