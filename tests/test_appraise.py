"""Quality of pseudo-masks: hand-computed metrics on an image of 8 x 12 pixels."""

import json

import numpy as np
import pytest

from stages import appraise
from stages.appraisal.quality import FALLBACKS, BoxQuality, box_quality, fallback, summarise
from stages.common.errors import UserError
from stages.data.tables import TRUTH, Dataset, encode_label_map, write_dataset, write_table
from stages.masks import rle
from stages.masks.labelmap import Chosen, draw_label_map
from stages.masks.shards import CANDIDATES, SCORES
from tests.support.mask_shards import write_split

SIZE_HW = (8, 12)
NAMES = ("dirt", "damage")


def rectangle(x1, y1, x2, y2) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def candidates(line: int, class_id: int, box: tuple, masks: list[np.ndarray], scores: list[float], chosen: int) -> list:
    """Rows of one box; columns that the appraisal does not read are 0."""
    x1, y1, x2, y2 = box
    return [
        dict.fromkeys(CANDIDATES.names, 0)
        | {"box_id": f"val/a:{line}", "image_id": "val/a", "class_id": class_id}
        | {"x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2), "cand_idx": index}
        | {"chosen": index == chosen, "rle": rle.encode(mask, (0, 0), SIZE_HW), "area": int(mask.sum())}
        | {"area_in_box": int(mask[y1:y2, x1:x2].sum()), "sam_pred_iou": score}
        for index, (mask, score) in enumerate(zip(masks, scores, strict=True))
    ]


TRUTH_MAP = np.zeros(SIZE_HW, np.uint8)
TRUTH_MAP[1:3, 1:5] = 1  # dirt, 8 px
TRUTH_MAP[5:7, 6:10] = 2  # damage, 8 px
TRUTH_MAP[6, 9] = 255  # of which one is not counted

DIRT = candidates(1, 0, (1, 1, 5, 5), [rectangle(1, 1, 5, 3), rectangle(0, 1, 3, 4)], [0.4, 0.8], chosen=1)
DAMAGE = candidates(2, 1, (6, 5, 10, 7), [rectangle(6, 5, 8, 7), rectangle(0, 0, 2, 2)], [0.9, 0.1], chosen=0)
STRAY = candidates(3, 1, (10, 0, 12, 2), [rectangle(10, 0, 12, 2), rectangle(0, 0, 0, 0)], [0.2, 0.6], chosen=1)


def test_a_box_is_compared_on_its_own_pixels():
    """Chosen mask in its box: x 1-2, y 1-3, 6 px, 4 of them right; 8 px are true, so 4 of 10."""
    found = box_quality(DIRT, TRUTH_MAP)
    assert found[:5] == (0, (1, 1, 5, 5), 0.4, 0.5, 1.0)
    assert found.scores == dict.fromkeys(SCORES, 0) | {"sam_pred_iou": 0.8}


def test_ignored_pixels_count_for_nothing():
    """7 true pixels are left; the chosen mask has 4 of them, the filled box all and no other."""
    found = box_quality(DAMAGE, TRUTH_MAP)
    assert (found.mask_iou, found.filled_box_iou) == (pytest.approx(4 / 7), 1.0)


def test_a_box_without_truth_has_no_iou():
    found = box_quality(STRAY, TRUTH_MAP)
    assert np.isnan([found.mask_iou, found.filled_box_iou, found.best_candidate_iou]).all()


@pytest.mark.parametrize(
    ("masks", "chosen", "probability", "why"),
    [
        ([rectangle(0, 0, 1, 1), rectangle(7, 0, 9, 8)], 0, 0.9, "no_candidate"),  # both beside the box
        ([rectangle(0, 0, 1, 1), rectangle(3, 2, 5, 4)], 0, 0.9, "empty"),
        ([rectangle(3, 2, 5, 4), rectangle(0, 0, 1, 1)], 0, 0.5, "low_probability"),
        ([rectangle(3, 2, 5, 4), rectangle(0, 0, 12, 8)], 1, 0.9, "whole_box"),
        ([rectangle(3, 2, 7, 4), rectangle(0, 0, 12, 8)], 0, 0.9, None),
        ([rectangle(3, 1, 7, 3), rectangle(0, 0, 12, 8)], 0, 0.9, "off_centre"),  # the box's middle is row 3
    ],
)
def test_what_became_of_a_box(masks, chosen, probability, why):
    rows = candidates(1, 0, (2, 1, 7, 6), masks, [0.1, 0.2], chosen)
    rows[chosen]["mean_prob_in"] = probability
    assert fallback(rows, SIZE_HW) == why


def quality(class_id: int, iou: float, predicted: float) -> BoxQuality:
    return BoxQuality(class_id, (0, 0, 1, 1), iou, 0.5, iou, {"sam_pred_iou": predicted})


def test_spearman_is_by_rank():
    boxes = [quality(0, iou, predicted) for iou, predicted in [(0.1, 0.2), (0.2, 0.9), (0.9, 0.91)]]
    counts = np.zeros((2, 3, 3), np.int64)
    assert summarise(boxes, counts, NAMES)["per_box"]["spearman_predicted_iou"] == 1.0
    reversed_ = [quality(0, 1 - box.mask_iou, box.scores["sam_pred_iou"]) for box in boxes]
    assert summarise(reversed_, counts, NAMES)["per_box"]["spearman_predicted_iou"] == -1.0
    assert summarise(boxes[:2], counts, NAMES)["per_box"]["spearman_predicted_iou"] is None
    assert summarise([quality(0, 0.3, 0.5)] * 4, counts, NAMES)["per_box"]["spearman_predicted_iou"] is None


def test_a_class_without_boxes_is_undefined_not_zero():
    result = summarise([quality(0, 0.4, 0.5)], np.zeros((2, 3, 3), np.int64), NAMES)
    assert result["per_box_by_class"]["damage"] == {
        "boxes": 0,
        "mask_iou": None,
        "filled_box_iou": None,
        "best_candidate_iou": None,
    }
    assert result["pseudo_masks"]["iou_bin"] is None


@pytest.fixture
def folder(tmp_path):
    """val: one image with truth and one without; train: no truth; test: no images."""
    write_dataset(tmp_path / "tables/dataset.json", Dataset(tmp_path, NAMES))
    rows = DIRT + DAMAGE + STRAY
    chosen = [Chosen(row["rle"], row["class_id"], (0.0, 0.0, 12.0, 8.0)) for row in rows if row["chosen"]]
    png = encode_label_map(draw_label_map(chosen, SIZE_HW, None))
    image = {"path": "a.png", "sha256": "", "exif_orientation": 1, "height": 8, "width": 12, "label_status": "labelled"}
    image |= {"n_boxes": 3, "label_map": {"bytes": png, "path": None}}
    write_split(tmp_path / "masks/val", ([{"image_id": "val/a"} | image], rows), ([{"image_id": "val/b"} | image], []))
    write_split(tmp_path / "masks/train", ([{"image_id": "train/a"} | image], []))
    write_split(tmp_path / "masks/test", ([], []))
    truth = {"image_id": "val/a", "height": 8, "width": 12, "mask_png": encode_label_map(TRUTH_MAP)}
    for split in ("train", "val", "test"):
        write_table(tmp_path / f"truth/{split}.parquet", TRUTH, [truth] if split == "val" else [])
    return tmp_path


def test_metrics_of_a_split_by_hand(folder):
    metrics = folder / "metrics.json"
    appraise.main(folder / "tables", folder / "masks", folder / "truth", metrics)
    result = json.loads(metrics.read_text())
    assert result["train"] == {
        "images": 1,
        "boxes": 0,
        "empty_masks": 0,
        "images_with_truth": 0,
        "masks_by_class": dict.fromkeys(NAMES, dict.fromkeys(("boxes", *FALLBACKS), 0)),
        "not_scored": "no image has pixel truth",
    }
    assert result["test"]["not_scored"] == "the data set has no such images"
    val = result["val"]
    assert [val[key] for key in ("images", "images_with_truth", "boxes", "empty_masks")] == [2, 1, 3, 1]
    assert val["masks_by_class"] == {  # the probabilities of these masks are 0
        "dirt": {"boxes": 1, "no_candidate": 0, "empty": 0, "low_probability": 1, "whole_box": 0, "off_centre": 0},
        "damage": {"boxes": 2, "no_candidate": 0, "empty": 1, "low_probability": 1, "whole_box": 0, "off_centre": 0},
    }
    assert val["boxes_without_truth"] == 1
    assert val["per_box"]["mask_iou"] == pytest.approx((4 / 10 + 4 / 7) / 2, abs=1e-6)
    assert val["per_box"]["filled_box_iou"] == 0.75
    assert val["per_box_by_class"]["dirt"] == {
        "boxes": 1,
        "mask_iou": 0.4,
        "filled_box_iou": 0.5,
        "best_candidate_iou": 1.0,
    }
    # pseudo-masks: dirt 9 px (4 right of 8), damage 4 px (4 right of 7); boxes: dirt 16 px, damage 7 + 4 px
    assert val["pseudo_masks"]["iou_bin"] == pytest.approx(8 / (15 + 13 - 8), abs=1e-6)
    assert val["pseudo_masks"]["miou_anom"] == pytest.approx((4 / 13 + 4 / 7) / 2, abs=1e-6)
    assert val["filled_boxes"]["recall_bin"] == 1.0
    assert val["filled_boxes"]["precision_bin"] == pytest.approx(15 / 27, abs=1e-6)


def test_truth_is_read_beside_the_shards_and_must_be_in_their_order(folder):
    truth = folder / "truth/val.parquet"
    rows = [
        {"image_id": f"val/{name}", "height": 8, "width": 12, "mask_png": encode_label_map(TRUTH_MAP)} for name in "ab"
    ]
    write_table(truth, TRUTH, rows)
    assert appraise.appraise(folder / "masks/val", truth, NAMES)["images_with_truth"] == 2
    write_table(truth, TRUTH, rows[::-1])
    with pytest.raises(UserError, match=r"val\.parquet: mask of val/a, which .*masks/val lacks or has elsewhere"):
        appraise.appraise(folder / "masks/val", truth, NAMES)


def test_a_perfect_teacher_is_perfect():
    truth = np.where(TRUTH_MAP == 255, 2, TRUTH_MAP)
    perfect = [
        box_quality(candidates(1, 0, (1, 1, 5, 3), [truth == 1], [0.7], chosen=0), truth),
        box_quality(candidates(2, 1, (5, 4, 12, 8), [truth == 2], [0.9], chosen=0), truth),
    ]
    assert [box.mask_iou for box in perfect] == [1.0, 1.0]
    assert perfect[1].filled_box_iou == 8 / 28
