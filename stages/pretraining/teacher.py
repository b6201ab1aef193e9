"""Make the embedded teacher: a small Sam, trained on the procedural world to turn a box into a mask.

    python -m stages.pretraining.teacher --out data/weights/embedded/teacher --metrics metrics/pretrain_teacher.json

What it sees is what rasterize shows it: a crop around the box. Its result is committed.
"""

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

from stages.common.errors import run
from stages.common.files import write_json
from stages.common.params import Section, load_params
from stages.compute.device import device_of
from stages.pretraining.config import PretrainParams
from stages.pretraining.loop import HELD_OUT_SEED, prepare, pretrain
from stages.pretraining.world.prompts import Prompt, prompt
from stages.teacher.sam import SamConfig, build_sam, predict_masks, save_sam

CONFIG = SamConfig(
    name="embedded",
    image_size=120,
    patch_size=6,
    embed_dim=128,
    depth=6,
    num_heads=4,
    global_attn_indexes=[2, 5],
    window_size=10,
    prompt_dim=96,
    decoder_heads=4,
    decoder_mlp_dim=192,
    iou_head_dim=96,
    source="stages/pretraining/teacher.py: procedural world only, no image, no human label",
)


class Params(Section):
    teacher: PretrainParams


class Prompts(Dataset):
    """Prompt i of the procedural world under `seed`, as tensors: image (3, S, S) in 0..255, size, box, mask, kind."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

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


def loss(sam: Sam, batch: list[Tensor]) -> Tensor:
    """The best of the three candidates learns the mask, so does the single one; all four learn to predict their IoU."""
    images, sizes_hw, boxes, masks = (part.to(sam.device) for part in batch[:4])
    logits, scores = forward(sam, images, sizes_hw, boxes)
    each = mask_losses(logits, masks)
    judged = F.mse_loss(scores, iou(logits.detach(), masks))
    # a little of every candidate's loss keeps those alive that are never the best
    return each[:, 0].mean() + each[:, 1:].min(1).values.mean() + 0.05 * each[:, 1:].mean() + judged


@torch.no_grad()
def held_out(sam: Sam, count: int) -> dict[str, float]:
    """IoU of the mask that predicted IoU chooses, clipped to the box: by kind of shape, and the mean of the kinds.

    `spearman`: how well predicted IoU ranks them.
    """
    sam.eval()
    kinds, chosen_iou, predicted = [], [], []
    for images, sizes_hw, boxes, masks, kind in DataLoader(Prompts(HELD_OUT_SEED), 32, sampler=range(count)):
        images, sizes_hw, boxes, masks = (part.to(sam.device) for part in (images, sizes_hw, boxes, masks))
        logits, scores = forward(sam, images, sizes_hw, boxes)
        best = scores[:, 1:].argmax(1, keepdim=True) + 1
        logits = logits.masked_fill(~inside(boxes, logits.shape[-1])[:, None], -torch.inf)
        chosen_iou += iou(logits, masks).gather(1, best)[:, 0].tolist()
        predicted += scores.gather(1, best)[:, 0].tolist()
        kinds += kind
    sam.train()
    values = np.array(chosen_iou)
    by_kind = {f"iou_{k}": float(values[np.array(kinds) == k].mean()) for k in sorted(set(kinds))}
    figures = {
        "iou": float(np.mean(list(by_kind.values()))),
        "spearman": float(spearmanr(predicted, chosen_iou).statistic),
    }
    return {"prompts": count, **{key: round(value, 4) for key, value in (figures | by_kind).items()}}


def inside(boxes_xyxy: Tensor, side: int) -> Tensor:
    """(B, 4) boxes -> (B, side, side) bool: pixels that a box touches."""
    pixel = torch.arange(side, device=boxes_xyxy.device)
    x1, y1, x2, y2 = boxes_xyxy[:, :, None].unbind(1)
    across, down = (pixel + 1 > x1) & (pixel < x2), (pixel + 1 > y1) & (pixel < y2)
    return down[:, :, None] & across[:, None, :]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    metrics: Annotated[Path, typer.Option(help="JSON file for the held-out scores.")],
    snapshot: Annotated[Path, typer.Option(help="File to go on from after a kill.")] = Path(
        "data/weights/.work/teacher.pt"
    ),
    params: Annotated[Path, typer.Option(help="YAML file with the section teacher.")] = Path(
        "data/weights/params.yaml"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the embedded teacher on procedural prompts."""
    wish = load_params(Params, params).teacher
    prepare(wish)
    sam = build_sam(CONFIG).to(device_of(device)).train()

    def judge(average: Sam) -> dict:
        return held_out(average, wish.held_out)

    blocks = [sam.image_encoder.blocks, sam.mask_decoder.transformer]
    average = pretrain("pretrain teacher", sam, Prompts(wish.seed), blocks, loss, judge, wish, snapshot)
    save_sam(out, average, CONFIG, torch.float16)
    write_json(metrics, {"steps": wish.steps, **judge(average)})


if __name__ == "__main__":
    run(main)
