"""A train split of three images, small enough to be checked by hand."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.data.tables import Dataset, encode_label_map
from stages.losses.method import TrainSplit
from stages.masks import rle
from stages.student.config import ViewParams
from stages.training.config import AugmentParams, TrainParams
from stages.training.samples import Samples

PLAIN = AugmentParams(flip=False, brightness=0.0, contrast=0.0, saturation=0.0, blur_px=0.0)
SIZES_HW = ((90, 140), (40, 200), (30, 35))
UNREAD = TrainSplit(Dataset(Path(), ("dirt", "damage")), masks=None, candidates=None, view=None, seed=0)
"""For methods that read nothing of the split but its classes."""


def label_map(size_hw, number):
    """Image 0 has class 1 (label 2) at rows 60-70, image 1 class 0 (label 1); image 2 is defect-free."""
    labels = np.zeros(size_hw, np.uint8)
    if number == 0:
        labels[60:70, 20:35] = 2
    if number == 1:
        labels[10:20, 150:180] = 1
    return labels


def candidate_mask(image: int, index: int) -> np.ndarray:
    """The defect of image 0 or 1; candidates 1 to 3 lack a row each more, the last of image 0 is empty."""
    mask = label_map(SIZES_HW[image], image) > 0
    mask[: np.flatnonzero(mask.any(1))[0] + index] = False
    return mask & (image == 1 or index < 3)


def candidate(image: int, index: int) -> dict:
    """A row of the candidates table, less its box."""
    mask = candidate_mask(image, index)
    scores = {"sam_pred_iou": 0.9 - index / 10, "stability": 0.8, "mean_prob_in": 0.7, "box_iou": 0.9 - index / 20}
    scores |= {"separation": 0.95, "agreement": 0.85}
    code = rle.encode(mask, (0, 0), mask.shape)
    return {"cand_idx": index, "chosen": index == 0, "rle": code, "area": int(mask.sum()), **scores}


def make_split(root, scale="native", seed=0) -> TrainSplit:
    """Three images whose red channel is 100 x their label, so that a cut of one can be told from the other."""
    rows, boxes = [], []
    root.mkdir(exist_ok=True)
    for number, size_hw in enumerate(SIZES_HW):
        labels = label_map(size_hw, number)
        path = root / f"{number}.png"
        Image.fromarray(np.stack([labels * 100, labels, labels], axis=-1)).save(path)
        rows.append(
            {
                "image_id": f"train/{number}",
                "path": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "exif_orientation": 1,
                "height": size_hw[0],
                "width": size_hw[1],
                "label_map": {"bytes": encode_label_map(labels), "path": f"{number}.png"},
                "trusted": None,
            }
        )
    for image, class_id, box in ((0, 1, (20.0, 60.0, 35.0, 70.0)), (1, 0, (150.0, 10.0, 180.0, 20.0))):
        corners = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        shared = {"box_id": f"train/{image}:1", "image_id": f"train/{image}", "class_id": class_id, **corners}
        boxes += [{**shared, **candidate(image, index)} for index in range(4)]
    view = ViewParams(scale=scale, size_px=56)
    source = Dataset(root, ("dirt", "damage"))
    return TrainSplit(source, pa.Table.from_pylist(rows), pa.Table.from_pylist(boxes), view, seed)


def samples_of(split, scale="native", augment=PLAIN, defect_share=0.5, seed=0, with_boxes=False, trusted_share=0.5):
    """Training samples of `split`, seen at `scale`, drawn by `seed`."""
    split = split._replace(view=ViewParams(scale=scale, size_px=56), seed=seed)
    train = TrainParams.model_construct(augment=augment, defect_share=defect_share, trusted_share=trusted_share)
    return Samples(split, train, with_boxes)
