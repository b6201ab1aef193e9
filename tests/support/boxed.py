"""Batches with boxes for tests: random ones, and ones whose masks are known."""

import pytest
import torch

from stages.losses.batch import SCORES, Batch, Boxes, Moment
from stages.student.segmenter import Logits
from tests.support.train_split import UNREAD

BOX_LOSS = {
    "stride": 1,
    "fine": 0.5,
    "binary": 0.5,
    "projection": 1.0,
    "pairwise": 1.0,
    "colour": 0.3,
    "outside": 1.0,
    "warmup": 0.0,
}


def boxes_of(xyxy, masks, class_id=None, image_index=None, candidates=None, **scores) -> Boxes:
    """Boxes with one mask each, (N, H, W) bool, repeated as all four candidates unless `candidates` says otherwise."""
    count = len(masks)
    xyxy = torch.as_tensor(xyxy, dtype=torch.float32).reshape(count, 4)
    candidates = masks[:, None].repeat(1, 4, 1, 1) if candidates is None else candidates
    ones = torch.ones(candidates.shape[:2])
    values = {
        "predicted_iou": 0.9,
        "mean_prob": 0.9,
        "box_iou": 0.9,
        "separation": 0.9,
        "agreement": 0.9,
    } | scores
    return Boxes(
        torch.zeros(count, dtype=torch.long) if image_index is None else torch.as_tensor(image_index),
        torch.zeros(count, dtype=torch.long) if class_id is None else torch.as_tensor(class_id),
        xyxy,
        candidates,
        candidates.flatten(2).any(2),
        *(ones * values[name] for name in SCORES.values()),
        torch.zeros(count, dtype=torch.long),
    )


def batch_of(boxes: Boxes, images: int = 1, size_hw=(20, 24), seed: int = 0) -> Batch:
    """Random pixels; labels made from the chosen candidates, in their order."""
    image = torch.rand(images, 3, *size_hw, generator=torch.Generator().manual_seed(seed))
    labels = torch.zeros(images, *size_hw, dtype=torch.long)
    for mask, index, class_id in zip(boxes.of_chosen(boxes.candidates), boxes.image_index, boxes.class_id, strict=True):
        labels[index][mask] = class_id + 1
    return Batch(image, image, labels, boxes)


def no_boxes(size_hw=(20, 24)) -> Boxes:
    """N = 0."""
    return boxes_of(torch.zeros(0, 4), torch.zeros(0, *size_hw, dtype=torch.bool))


def filled(xyxy, size_hw=(20, 24)) -> torch.Tensor:
    """(1, H, W) bool: the pixels of a box with whole corners."""
    x1, y1, x2, y2 = xyxy
    mask = torch.zeros(1, *size_hw, dtype=torch.bool)
    mask[0, y1:y2, x1:x2] = True
    return mask


def random_batch(seed: int, count: int = 4, images: int = 2, classes: int = 2, size_hw=(20, 24)) -> Batch:
    """Boxes anywhere, some over the rim, some tiny, some on each other; masks as they fall."""
    draw = torch.Generator().manual_seed(seed)
    side = torch.tensor([size_hw[1], size_hw[0]])
    low = (torch.rand(count, 2, generator=draw) * 1.1 - 0.15) * side
    xyxy = torch.cat([low, low + 0.5 + torch.rand(count, 2, generator=draw) * side / 2], dim=1)
    candidates = torch.rand(count, 4, *size_hw, generator=draw) < 0.6
    boxes = boxes_of(
        xyxy,
        candidates[:, 0],
        torch.randint(0, classes, (count,), generator=draw),
        torch.randint(0, images, (count,), generator=draw),
        candidates,
    )
    names = tuple(SCORES.values())
    boxes = boxes._replace(**{name: torch.rand(count, 4, generator=draw) for name in names})
    return batch_of(boxes, images, size_hw, seed)


def random_logits(seed: int, images: int = 2, classes: int = 2, size_hw=(20, 24), spread: float = 2.0) -> Logits:
    """Both heads, with gradient."""
    draw = torch.Generator().manual_seed(seed + 1000)
    fine, binary = (torch.randn(images, n, *size_hw, generator=draw) * spread for n in (classes + 1, 2))
    return Logits(fine.requires_grad_(), binary.requires_grad_())


def sure_of(labels: torch.Tensor, classes: int = 2, logit: float = 20.0) -> Logits:
    """Logits that say `labels` (B, H, W), with gradient."""
    fine = torch.nn.functional.one_hot(labels, classes + 1).permute(0, 3, 1, 2) * logit
    binary = torch.nn.functional.one_hot((labels > 0).long(), 2).permute(0, 3, 1, 2) * logit
    return Logits(fine.requires_grad_(), binary.requires_grad_())


def frozen(logits: Logits) -> Logits:
    """The same without gradient: a teacher's."""
    return Logits(logits.fine.detach(), logits.binary.detach())


def flipped(batch: Batch) -> Batch:
    """Mirrored left to right."""
    width = batch.labels.shape[-1]
    x1, y1, x2, y2 = batch.boxes.xyxy.unbind(1)
    mirrored = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    boxes = batch.boxes._replace(xyxy=mirrored, candidates=batch.boxes.candidates.flip(-1))
    return Batch(batch.image.flip(-1), batch.clean.flip(-1), batch.labels.flip(-1), boxes)


def flipped_logits(logits: Logits) -> Logits:
    return Logits(logits.fine.flip(-1), logits.binary.flip(-1))


def total(named) -> float:
    return sum(named.values()).item()


def losses_of(module, logits, batch, params, moment, ema=None):
    """What the method in `module` makes of a batch, in a training of its own of two classes."""
    return module.Method(params, UNREAD).losses(logits, batch, moment, ema)


def check_mask_losses_rise(module, params) -> None:
    """Both mask losses of the method in `module` rise over the warm-up, each by its weight. `params`: function that
    makes its `Params`, with changes by keyword, of weights 0.5 (`pixel`) and 0.1 (`affinity`)."""
    batch, logits, teacher = random_batch(5), random_logits(5), frozen(random_logits(6))

    def at(progress: float, **changes) -> tuple[float, float]:
        moment = Moment(progress, torch.ones(3))
        found, _ = losses_of(module, logits, batch, params(**{"warmup": 0.2, **changes}), moment, teacher)
        return found["pixel"].item(), found["affinity"].item()

    pixel, affinity = at(1.0)
    assert pixel > 0 < affinity
    assert at(0.0) == (0, 0)
    assert at(0.1) == pytest.approx((pixel / 2, affinity / 2))
    assert at(0.1, pixel=1.0) == pytest.approx((pixel, affinity / 2))
    assert at(0.1, affinity=0.3) == pytest.approx((pixel / 2, affinity * 1.5))
