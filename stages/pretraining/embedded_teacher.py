"""The embedded SAM teacher and how it is pre-trained: a small `Sam` that turns a box into a mask.

Its samples come from the procedural world and show what rasterize shows: crops around a box, and pieces of large boxes.
Trained as SAM was (arXiv 2304.02643, appendix A), except that every candidate learns a little.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from segment_anything.modeling import Sam
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stages.data.boxes import pixels_of_box
from stages.losses.pseudo_masks import mask_iou
from stages.pretraining.world.prompt_samples import piece, prompt
from stages.student.efficientnet_lite0 import MEAN, STD, load_weights
from stages.teacher.image_encoders import LiteSamConfig
from stages.teacher.sam import build_sam, embed, propose

CONFIG = LiteSamConfig(
    name="embedded",
    image_size=192,
    prompt_dim=128,
    blocks=3,
    decoder_heads=4,
    decoder_mlp_dim=256,
    iou_head_dim=128,
    pixel_mean=[255 * value for value in MEAN],
    pixel_std=[255 * value for value in STD],
    source="stages/pretrain.py: EfficientNet-Lite0 of ImageNet, all else of the procedural world alone",
)

HELD_OUT_SEED = 1_000_003
"""Never a training seed: the held-out prompts are the same for every training."""

PIECES = 0.5
"""Share of prompts that are pieces of boxes that are larger than the view."""


class Prompts(Dataset):
    """Sample i: prompt i of the procedural world for `seed`, as the fields of `Prompt`; the image is float32 (3, S, S)
    in 0..255, without normalisation and with zeros as padding."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        rng = np.random.default_rng([self.seed, number])
        made = (piece if rng.random() < PIECES else prompt)(rng, CONFIG.image_size)
        image = torch.from_numpy(made.image).permute(2, 0, 1).float()
        box, mask = torch.from_numpy(made.box_xyxy), torch.from_numpy(made.mask)
        return image, torch.tensor(made.size_hw), box, mask, made.kind


def forward(sam: Sam, images: Tensor, sizes_hw: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 4, S, S) and predicted IoU (B, 4) of all four mask tokens.

    `images` (B, 3, S, S) in 0..255, of which the upper left `sizes_hw` (B, 2) is image and the rest padding; `boxes`
    (B, 4) xyxy in pixels, one per image.
    """
    images = (images - sam.pixel_mean) / sam.pixel_std
    side = torch.arange(images.shape[-1], device=images.device)
    inside = (side[None, :, None] < sizes_hw[:, 0, None, None]) & (side[None, None, :] < sizes_hw[:, 1, None, None])
    masks, scores = propose(sam, embed(sam, images * inside[:, None]), boxes)
    return F.interpolate(masks, images.shape[-2:], mode="bilinear", align_corners=False), scores


def mask_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """(B, C): 20 focal loss + Dice of each candidate, as in SAM. `logits` (B, C, S, S), `masks` (B, S, S) bool."""
    target = masks[:, None].float().expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - torch.exp(-cross_entropy)) ** 2 * cross_entropy).mean((-1, -2))
    p = logits.sigmoid()
    overlap, total = (p * target).sum((-1, -2)), (p + target).sum((-1, -2))
    return 20 * focal + 1 - (2 * overlap + 1) / (total + 1)


def loss(sam: Sam, batch: list[Tensor]) -> Tensor:
    """Scalar: the mask loss of the single mask and of the best of the three candidates, and the squared error of all
    four predicted IoUs."""
    images, sizes_hw, boxes, masks = (part.to(sam.device) for part in batch[:4])
    logits, scores = forward(sam, images, sizes_hw, boxes)
    each = mask_losses(logits, masks)
    iou_error = F.mse_loss(scores, mask_iou(logits.detach() > 0, masks[:, None]))
    # without a little of every candidate's loss, a candidate that is never the best would never learn
    return each[:, 0].mean() + each[:, 1:].min(1).values.mean() + 0.05 * each[:, 1:].mean() + iou_error


@torch.no_grad()
def held_out(sam: Sam, count: int) -> dict[str, float]:
    """Metrics on `count` held-out prompts: IoU of the candidate (of the last three) with the highest predicted IoU,
    clipped to the box, per kind of shape and as mean over kinds; `spearman`: rank correlation of predicted and true
    IoU."""
    sam.eval()
    kinds, chosen_iou, predicted = [], [], []
    for images, sizes_hw, boxes, masks, kind in DataLoader(Prompts(HELD_OUT_SEED), 32, sampler=range(count)):
        images, sizes_hw, boxes, masks = (part.to(sam.device) for part in (images, sizes_hw, boxes, masks))
        logits, scores = forward(sam, images, sizes_hw, boxes)
        best = scores[:, 1:].argmax(1, keepdim=True) + 1
        each = mask_iou(clipped(logits, boxes) > 0, masks[:, None])
        chosen_iou += each.gather(1, best)[:, 0].tolist()
        predicted += scores.gather(1, best)[:, 0].tolist()
        kinds += kind
    values = np.array(chosen_iou)
    by_kind = {f"iou_{k}": float(values[np.array(kinds) == k].mean()) for k in sorted(set(kinds))}
    mean, spearman = float(np.mean(list(by_kind.values()))), float(spearmanr(predicted, chosen_iou).statistic)
    metrics = {"iou": mean, "spearman": spearman, **by_kind}
    return {"prompts": count, **{key: round(value, 4) for key, value in metrics.items()}}


def clipped(logits: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """`logits` (B, C, S, S) with -inf outside of the pixels that a box touches, one box per image."""
    inside = torch.zeros_like(logits[:, :1], dtype=torch.bool)
    for one, box in zip(inside, boxes_xyxy.tolist(), strict=True):
        x1, y1, x2, y2 = pixels_of_box(tuple(box), logits.shape[-2:])
        one[:, y1:y2, x1:x2] = True
    return logits.masked_fill(~inside, -torch.inf)


def first_teacher(device: torch.device) -> Sam:
    """The teacher before training, on `device`: ImageNet's weights in its frozen encoder, all others random."""
    sam, imagenet = build_sam(CONFIG), load_weights()
    net = sam.image_encoder.net
    net.load_state_dict({key: imagenet[key] for key in net.state_dict()})
    return sam.to(device).train()
