"""Instance-level mask average precision over connected regions, by pycocotools' COCOeval.

T.-Y. Lin et al., "Microsoft COCO: common objects in context", ECCV 2014: detections by descending score, each matched
to the unmatched true region of its class and image with the largest IoU; interpolated precision at 101 levels of
recall; mean over classes. The score of a region is the mean probability of its class over its pixels.

    ap10, ap50      at an IoU of 0.1, 0.5
    ap              mean over IoUs 0.50, 0.55, ..., 0.95
    ap50_by_class   null for a class without a true defect; it is left out of the means

Undefined where the truth has no defect at all. The number of regions per image is not limited (COCO's limit is 100).
Memory grows with the number of regions (their RLE codes are kept) and of images that have some, times classes.
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from stages.evaluation.components import Regions
from stages.masks import rle
from stages.metrics.scores import defined

AP_IOUS = (0.1, *np.linspace(0.5, 0.95, 10))
"""0.1, and COCO's ten thresholds."""


class Detected(NamedTuple):
    """The regions of one image, true and predicted, as annotations in COCO's form; ready for JSON."""

    size_hw: list[int]
    true: list[dict]
    predicted: list[dict]


def detected(true: Regions, predicted: Regions, scores: Sequence[float]) -> Detected:
    """`scores`: one per region of the predicted label map, including those that `predicted` leaves out."""
    own = [
        {**one, "score": float(scores[place])} for one, place in zip(_coded(predicted), predicted.places, strict=True)
    ]
    return Detected(list(true.index.shape), _coded(true), own)


def average_precision(detections: Iterable[Detected], names: Sequence[str]) -> dict[str, object]:
    """The metrics above; `names`: the K classes."""
    images: list[dict] = []
    true: list[dict] = []
    predicted: list[dict] = []
    most = 1
    # COCOeval keeps something for each image and class; images without any region change no result
    for image_id, one_image in enumerate((one for one in detections if one.true or one.predicted), start=1):
        height, width = one_image.size_hw
        images.append({"id": image_id, "height": height, "width": width})
        for found, own in ((true, one_image.true), (predicted, one_image.predicted)):
            # numbered from 1: to COCOeval, 0 is no match
            found += [{**one, "id": len(found) + number, "image_id": image_id} for number, one in enumerate(own, 1)]
        most = max(most, len(one_image.predicted))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(images, true, names), _coco(images, predicted, names), "segm")
        evaluation.params.iouThrs = np.array(AP_IOUS)
        evaluation.params.maxDets = [most]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU, recall, class): -1 throughout for a class without truth
    precision = evaluation.eval["precision"][..., 0, 0]
    of_class = np.where(precision.min(axis=1) < 0, np.nan, precision.mean(axis=1))
    known = of_class[:, ~np.isnan(of_class[0])]
    by_iou = known.mean(axis=1) if known.size else np.full(len(AP_IOUS), np.nan)
    return {
        "ap10": defined(by_iou[0]),
        "ap50": defined(by_iou[1]),
        "ap": defined(by_iou[1:].mean()),
        "ap50_by_class": {name: defined(value) for name, value in zip(names, of_class[1], strict=True)},
    }


def _coded(found: Regions) -> list[dict]:
    annotations = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(found.index), start=1):
        mask = found.index[rows, columns] == number
        code = rle.encode(mask, (columns.start, rows.start), found.index.shape)
        annotations.append(
            {
                "category_id": int(found.class_ids[number - 1]),
                "segmentation": {"size": list(found.index.shape), "counts": code.decode("ascii")},
                "area": int(found.areas_px[number - 1]),
                "iscrowd": 0,
            }
        )
    return annotations


def _coco(images: list[dict], annotations: list[dict], names: Sequence[str]) -> COCO:
    coco = COCO()
    categories = [{"id": class_id, "name": name} for class_id, name in enumerate(names)]
    coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
    coco.createIndex()
    return coco
