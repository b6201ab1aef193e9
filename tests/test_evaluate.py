"""The evaluate stage on a tiny data set, with a student whose answers are known."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages import evaluate
from stages.common.errors import UserError
from stages.common.params import read_sealed
from stages.data.tables import (
    BOXES,
    IMAGES,
    TRUTH,
    Dataset,
    decode_label_map,
    encode_label_map,
    write_dataset,
    write_table,
)
from stages.engine.engines import run_jobs
from stages.engine.shard_jobs import Done, forget
from stages.evaluation import predicting, seed_runs
from stages.evaluation.card import as_markdown
from stages.evaluation.predictions import stream_predictions
from stages.evaluation.probabilities import STEPS, decode_shares
from stages.masks import rle
from stages.masks.shards import MASKS, Shard, stream_masks, write_index
from stages.student.tiling import Prediction
from tests.support.mask_shards import write_split
from tests.support.tiny_student import decided_student

NAMES = ("dirt", "damage")
SIZES_HW = [(40, 56), (33, 72), (60, 31)]


class RedAndBlue:
    """Says `dirt` where an image is red and `damage` where it is blue."""

    config = SimpleNamespace(names=list(NAMES))

    def __init__(self) -> None:
        self.seen_hw: list[tuple[int, int]] = []
        self.sure: dict[str, float] = {}

    def of_seed(self, seed: int) -> "RedAndBlue":
        """The student of seed 5 is blind to blue."""
        self.seed = seed
        return self

    def to(self, _device) -> "RedAndBlue":
        return self

    def predict(self, image: np.ndarray, watch) -> Prediction:
        self.seen_hw.append(image.shape[:2])
        dirt, damage = image[..., 0] > 128, (image[..., 2] > 128) & (self.seed != 5)
        probabilities = np.stack([~(dirt | damage), dirt, damage]).astype(np.float32)
        # of dirt, in images of a certain size
        sure = next((sure for key, sure in self.sure.items() if SIZES_HW[int(key[-1])] == image.shape[:2]), 1.0)
        probabilities[1] *= sure
        watch(slice(0, len(image)), np.log(probabilities + 1e-6))
        return Prediction(probabilities.argmax(0).astype(np.uint8), probabilities.max(0))


def labels_of(index: int, size_hw: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(size_hw, dtype=np.uint8)
    labels[4:14, 6:20] = 1
    labels[18 : 24 + index, 5:25] = 2
    return labels


def image_of(labels: np.ndarray) -> np.ndarray:
    return np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.uint8)[labels]


def build(root: Path, truth: dict[str, np.ndarray], test_images: int = 3) -> None:
    """A data set below `root`, its tables, pseudo-masks (exact) and the given truth by image id, sizes as SIZES_HW."""
    write_dataset(root / "tables" / "dataset.json", Dataset(root / "set", NAMES))
    for split, count in (("val", 2), ("test", test_images)):
        rows, masks = [], []
        for index, size_hw in enumerate(SIZES_HW[:count]):
            path = root / "set" / "images" / split / f"p{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            labels = labels_of(index, size_hw)
            Image.fromarray(image_of(labels)).save(path)
            row = {
                "image_id": f"{split}/p{index}",
                "path": f"images/{split}/p{index}.png",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "exif_orientation": 1,
                "height": size_hw[0],
                "width": size_hw[1],
                "label_status": "labelled",
            }
            rows.append({**row, "split": split})
            masks.append({**row, "n_boxes": 2, "label_map": {"bytes": encode_label_map(labels), "path": None}})
        write_table(root / "tables" / split / "images.parquet", IMAGES, rows)
        write_table(root / "tables" / split / "boxes.parquet", BOXES, [])
        human = [
            {"image_id": key, "height": len(value), "width": value.shape[1], "mask_png": encode_label_map(value)}
            for key, value in sorted(truth.items())
            if key.startswith(split)
        ]
        write_table(root / "truth" / f"{split}.parquet", TRUTH, human)
        write_split(root / "masks" / split, (masks, []))
    for name, schema in (("images", IMAGES), ("boxes", BOXES)):
        write_table(root / "tables/train" / f"{name}.parquet", schema, [])
    write_params(root, "native")


def write_params(root: Path, resolution: str, seeds: tuple[int, ...] = (4,), point: str = "argmax") -> None:
    for seed in seeds:
        for name in evaluate.STUDENT_FILES:
            path = root / "model" / str(seed) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {seed}")
    text = f"evaluate: {{resolution: {resolution}, operating_point: {point}, bootstrap: {{samples: 200, seed: 3}}}}\n"
    text += f"seeds: {list(seeds)}\nweights: {{teacher: /somewhere/vit_b, backbone: embedded}}\n"
    (root / "params.yaml").write_text(text)


@pytest.fixture
def student(monkeypatch):
    fake = RedAndBlue()
    monkeypatch.setattr(predicting, "load_student", lambda folder: fake.of_seed(int(folder.name)))
    monkeypatch.setattr(predicting, "predict", lambda student, image, watch: student.predict(image, watch))
    monkeypatch.setattr(evaluate, "read_student", lambda _: (decided_student("native").config, ""))
    return fake


def run(root: Path, out: str = "out", **how) -> dict:
    evaluate.main(
        model=root / "model",
        metrics=root / out / "metrics.json",
        predictions=root / out / "predictions",
        models=root / out / "models",
        tables=root / "tables",
        masks=root / "masks",
        truth=root / "truth",
        params=root / "params.yaml",
        device="cpu",
        **how,
    )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((root / out / "metrics.json").read_text(), parse_constant=refuse)


def exact_truth() -> dict[str, np.ndarray]:
    return {f"test/p{index}": labels_of(index, size) for index, size in enumerate(SIZES_HW)}


def test_a_perfect_student_scores_one_with_an_interval_of_no_width(tmp_path, student):
    build(tmp_path, exact_truth())
    metrics = run(tmp_path)
    for split, images in (("val", 2), ("test", 3)):
        scores = metrics[split]
        assert (scores["images"], scores["images_without_truth"]) == (images, 0)
        for key in ("miou", "miou_anom", "f1_anom", "iou_bin", "recall_bin", "precision_bin", "iou_dirt", "iou_damage"):
            assert scores[key] == scores[f"{key}_low"] == scores[f"{key}_high"] == 1


def test_a_perfect_student_detects_every_defect_without_false_positives(tmp_path, student):
    build(tmp_path, exact_truth())
    metrics = run(tmp_path)
    for split, true in (("val", 4), ("test", 6)):
        defects = metrics[split]["defects"]
        assert defects["true_defects"] == true
        for key in ("recall_defects_iou10", "recall_defects_iou50"):
            assert defects[key] == defects[f"{key}_low"] == defects[f"{key}_high"] == 1
        assert (
            defects["false_positives_per_image_iou10"]
            == defects["false_positives_per_image_iou50"]
            == defects["false_positives_per_image_no_overlap"]
            == 0
        )
        assert defects["ap10"] == defects["ap50"] == defects["ap"] == 1
        assert defects["ap50_by_class"] == {"dirt": 1, "damage": 1}


def test_defects_are_counted_per_image_and_ranked_by_their_probability(tmp_path, student):
    truth = exact_truth()
    truth["test/p1"] = np.where(truth["test/p1"] == 1, 0, truth["test/p1"])  # its dirt is a false positive
    student.sure = {"test/p1": 0.6}
    build(tmp_path, truth)
    defects = run(tmp_path)["test"]["defects"]
    assert (defects["recall_defects_iou50"], defects["false_positives_per_image_iou10"]) == (
        1,
        pytest.approx(1 / 3, abs=1e-6),
    )
    assert defects["ap50_by_class"]["damage"] == 1
    # ranked after both true positives, the false positive does not reduce precision; ranked before one, it does
    assert defects["ap50_by_class"]["dirt"] == 1
    rows = list(stream_predictions(tmp_path / "out/predictions/4/test.parquet"))
    assert [row["defect_scores"] for row in rows] == [[1, 1], pytest.approx([0.6, 1]), [1, 1]]
    student.sure = {}
    precision = run(tmp_path)["test"]["defects"]["ap50_by_class"]["dirt"]
    assert precision == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-6)


def test_val_is_scored_against_the_teacher_and_test_against_truth(tmp_path, student):
    nothing = {key: np.zeros_like(value) for key, value in exact_truth().items()}
    val = {f"val/p{index}": np.zeros(size, np.uint8) for index, size in enumerate(SIZES_HW[:2])}
    build(tmp_path, nothing | val)
    metrics = run(tmp_path)
    assert metrics["val"]["iou_bin"] == 1
    assert metrics["test"]["iou_bin"] == metrics["test"]["precision_bin"] == 0
    assert metrics["test"]["recall_bin"] is metrics["test"]["recall_bin_low"] is None
    defects = metrics["test"]["defects"]
    assert defects["recall_defects_iou10"] is defects["ap50"] is defects["ap50_by_class"]["dirt"] is None
    assert defects["false_positives_per_image_no_overlap"] == 2


def trust(root: Path, image: int, drawn: np.ndarray, pixels: np.ndarray) -> None:
    """Let a person have drawn `drawn` in the `pixels` of a val image."""
    path = root / "masks/val/label_maps/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    labels = np.where(pixels, drawn, decode_label_map(rows[image]["label_map"]["bytes"]))
    rows[image]["label_map"]["bytes"] = encode_label_map(labels.astype(np.uint8))
    rows[image]["trusted"] = rle.encode(pixels, (0, 0), labels.shape)
    write_table(path, MASKS, rows)


def test_what_people_drew_in_val_is_scored_apart_from_the_teachers_masks(tmp_path, student):
    """In the left half of image 0 nothing is a defect: there the student has only false positives."""
    build(tmp_path, exact_truth())
    left = np.zeros(SIZES_HW[0], bool)
    left[:, :13] = True
    trust(tmp_path, 0, np.zeros(SIZES_HW[0]), left)
    metrics = run(tmp_path)
    assert (metrics["val"]["images"], metrics["val"]["iou_bin"]) == (2, 1)
    assert (metrics["val_trusted"]["images"], metrics["val_trusted"]["iou_bin"]) == (1, 0)
    assert metrics["val"]["images_without_truth"] == 0
    assert metrics["operating_point"]["chosen_on"] == "trusted masks of val"
    (row,) = stream_predictions(tmp_path / "out/predictions/4/val_trusted.parquet")
    dirt, damage = 10 * (13 - 6), 6 * (13 - 5)
    assert row["confusion"] == [40 * 13 - dirt - damage, dirt, damage, 0, 0, 0, 0, 0, 0]
    assert "val_trusted" not in run_plain(tmp_path)


def run_plain(root: Path) -> dict:
    build(root, exact_truth())
    return run(root, "plain")


def test_where_all_of_val_is_trusted_no_score_is_against_the_teacher(tmp_path, student):
    build(tmp_path, exact_truth())
    for image, size_hw in enumerate(SIZES_HW[:2]):
        trust(tmp_path, image, labels_of(image, size_hw), np.ones(size_hw, bool))
    metrics = run(tmp_path)
    assert (metrics["val"], metrics["val_not_scored"]) == (None, "all of val is trusted: see val_trusted")
    assert (metrics["val_trusted"]["images"], metrics["val_trusted"]["iou_bin"]) == (2, 1)


def test_counts_are_summed_over_the_split_at_native_resolution(tmp_path, student):
    truth = exact_truth()
    truth["test/p1"] = np.zeros_like(truth["test/p1"])
    build(tmp_path, truth)
    hits = sum((truth[key] > 0).sum() for key in ("test/p0", "test/p2"))
    false_positives = (labels_of(1, SIZES_HW[1]) > 0).sum()
    assert run(tmp_path)["test"]["iou_bin"] == pytest.approx(hits / (hits + false_positives), abs=1e-6)
    assert student.seen_hw == [*SIZES_HW[:2], *SIZES_HW]


def test_ignored_pixels_count_for_nothing(tmp_path, student):
    truth = exact_truth()
    truth["test/p0"][:, 30:] = 255
    truth["test/p0"][4:14, 6:20] = 255
    build(tmp_path, truth)
    assert run(tmp_path)["test"]["iou_bin"] == 1
    rows = stream_predictions(tmp_path / "out/predictions/4/test.parquet")
    assert sum(next(rows)["confusion"]) == 40 * 30 - 10 * 14


def test_images_without_truth_are_predicted_and_counted_but_not_scored(tmp_path, student):
    truth = exact_truth()
    del truth["test/p1"]
    build(tmp_path, truth)
    metrics = run(tmp_path)
    assert (metrics["test"]["images"], metrics["test"]["images_without_truth"]) == (2, 1)
    rows = list(stream_predictions(tmp_path / "out/predictions/4/test.parquet"))
    assert [row["image_id"] for row in rows] == ["test/p0", "test/p1", "test/p2"]
    assert [row["confusion"] is None for row in rows] == [False, True, False]
    np.testing.assert_array_equal(decode_label_map(rows[1]["mask_png"]), labels_of(1, SIZES_HW[1]))


def test_without_any_truth_the_test_split_is_null_with_the_reason(tmp_path, student):
    build(tmp_path, {})
    metrics = run(tmp_path)
    assert metrics["test"] is None
    assert metrics["test_not_scored"].startswith("none of the 3 test images has pixel truth: masks lie in")
    assert metrics["val"]["iou_bin"] == 1


def test_without_test_images_the_reason_is_given(tmp_path, student):
    build(tmp_path, {}, test_images=0)
    metrics = run(tmp_path)
    assert (metrics["test"], metrics["test_not_scored"]) == (None, "the data set has no test images")
    assert len(list(stream_predictions(tmp_path / "out/predictions/4/test.parquet"))) == 0


def test_the_published_protocol_predicts_and_compares_at_518(tmp_path, student):
    build(tmp_path, exact_truth())
    write_params(tmp_path, "stretched_518")
    metrics = run(tmp_path)
    assert metrics["resolution"] == "stretched_518"
    assert set(student.seen_hw) == {(518, 518)}
    rows = list(stream_predictions(tmp_path / "out/predictions/4/test.parquet"))
    assert [sum(row["confusion"]) for row in rows] == [518 * 518] * 3
    assert decode_label_map(rows[2]["mask_png"]).shape == (518, 518)
    assert metrics["test"]["defects"]["recall_defects_iou50"] == metrics["test"]["defects"]["ap50"] == 1
    # Where the stretched image blends at an edge, truth does not: close to one, not exactly.
    assert 0.97 < metrics["test"]["iou_bin"] <= 1


def test_a_rerun_writes_the_same_bytes(tmp_path, student):
    build(tmp_path, exact_truth())
    run(tmp_path, "first")
    run(tmp_path, "second")
    names = ["metrics.json", "predictions/4/val.parquet", "predictions/4/test.parquet"]
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in names)


def test_scores_are_means_over_seeds_and_each_seed_is_listed(tmp_path, student):
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", seeds=(4, 5))
    dirt = sum((labels_of(index, size) == 1).sum() for index, size in enumerate(SIZES_HW))
    defect = sum((labels_of(index, size) > 0).sum() for index, size in enumerate(SIZES_HW))
    metrics = run(tmp_path)
    assert metrics["seeds"] == [4, 5]
    assert metrics["test"]["iou_bin_by_seed"] == pytest.approx([1, dirt / defect], abs=1e-6)
    assert metrics["test"]["iou_bin"] == pytest.approx((1 + dirt / defect) / 2, abs=1e-6)
    assert metrics["test"]["iou_bin_low"] < dirt / defect + 0.1
    assert metrics["test"]["iou_bin_high"] == 1
    assert (metrics["test"]["defects"]["recall_defects_iou50"], metrics["test"]["defects"]["ap50"]) == (0.75, 0.75)
    assert metrics["test"]["defects"]["ap50_by_class"] == {"dirt": 1, "damage": 0.5}
    for seed in (4, 5):
        assert len(list(stream_predictions(tmp_path / f"out/predictions/{seed}/test.parquet"))) == 3


def test_scores_for_the_report_name_the_bytes_of_the_students_behind_them(tmp_path, student):
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", seeds=(4, 5))
    metrics = run(tmp_path)
    scores = read_sealed(tmp_path / "out/predictions/scores.json", "")
    own = {seed: f"student.safetensors of {seed}student.json of {seed}" for seed in "45"}
    hashes = {seed: hashlib.sha256(text.encode()).hexdigest() for seed, text in own.items()}
    assert scores == metrics | {"students": hashes, "card": scores["card"]}
    (tmp_path / "model/5/student.json").write_text("another plan")
    run(tmp_path)
    again = json.loads((tmp_path / "out/predictions/scores.json").read_text())["students"]
    assert [again[seed] == scores["students"][seed] for seed in "45"] == [True, False]


def test_a_seed_that_is_listed_twice_is_refused(tmp_path, student):
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", seeds=(4, 4))
    with pytest.raises(UserError, match=r"seeds = \[4, 4\]: each value may be listed once only"):
        run(tmp_path)


def test_a_student_of_other_classes_is_refused(tmp_path, student):
    build(tmp_path, exact_truth())
    student.config = SimpleNamespace(names=["damage", "dirt"])
    with pytest.raises(UserError, match=r"trained on classes \['damage', 'dirt'\]"):
        run(tmp_path)


def test_predictions_of_another_kind_are_refused(tmp_path):
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "test.parquet")
    with pytest.raises(UserError, match="expected"):
        list(stream_predictions(tmp_path / "test.parquet"))


def test_an_operating_point_is_chosen_on_val_and_reported_on_test(tmp_path, student):
    student.sure = {"test/p1": 0.66}
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", point="{recall: 1.0}")
    metrics = run(tmp_path)
    point = metrics["operating_point"]
    assert (point["wish"], point["chosen_on"]) == ({"recall": 1.0}, "SAM's masks of val")
    (own,) = point["by_seed"]
    saved = read_sealed(tmp_path / "out/models/4/operating_point.json", "")
    assert saved == {key: own[key] for key in saved}
    assert own["fulfilled"] == {"dirt": True, "damage": True}
    # val's smallest regions: 140 px of dirt, 120 px of damage; half of them
    assert own["least_area_px"] == [70, 60]
    assert point["test"]["defects"]["recall_defects_iou10"] == 1
    assert metrics["test"]["recall_bin"] == 1
    curves = json.loads((tmp_path / "out/predictions/curves.json").read_text())
    assert curves["test"]["classes"]["dirt"]["recall_px"][0] == 1
    card = (tmp_path / "out/models/card.md").read_text()
    assert "recall 1, chosen on SAM's masks of val" in card
    assert "| score | argmax | operating point |" in card
    assert "| data set | set: 0 train, 2 val, 3 test images |" in card
    assert "by the SAM teacher vit_b," in card
    assert "| weights of the SAM teacher | vit_b: licence unknown: yours to say |" in card, "a file of the user's"


def torn(image: np.ndarray, watch) -> Prediction:
    """Says dirt with 0.42 and damage with 0.32 where an image is red; damage with 0.22 where it is blue."""
    said = np.array([(1, 0, 0), (0.26, 0.42, 0.32), (0.76, 0.02, 0.22)])
    probabilities = said[(image[..., 0] > 128) + 2 * (image[..., 2] > 128)].transpose(2, 0, 1).astype(np.float32)
    watch(slice(0, len(image)), np.log(probabilities + 1e-6))
    return Prediction(probabilities.argmax(0).astype(np.uint8), probabilities.max(0))


def test_where_classes_compete_the_wish_is_checked_on_the_masks_of_val_and_reported_per_class(tmp_path, student):
    student.predict = torn
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", point="{recall: 1.0}")
    metrics = run(tmp_path)
    (own,) = metrics["operating_point"]["by_seed"]
    assert own["thresholds"] == [0.4, 0.2]
    assert own["fulfilled"] == {"dirt": False, "damage": True}
    assert own["on_val"]["dirt"] == {"recall_defects_iou10": 0, "false_positives_per_image_iou10": 0}
    assert own["on_val"]["damage"] == {"recall_defects_iou10": 1, "false_positives_per_image_iou10": 1}
    of_test = metrics["operating_point"]["test"]["defects"]
    assert of_test["recall_defects_iou10"] == 1, "whatever the class"
    dirt, damage = of_test["by_class"]["dirt"], of_test["by_class"]["damage"]
    assert (dirt["true_defects"], dirt["recall_defects_iou10"], dirt["recall_defects_iou10_high"]) == (3, 0, 0)
    assert (damage["recall_defects_iou10"], damage["false_positives_per_image_iou10_low"]) == (1, 1)
    assert metrics["test"]["defects"]["by_class"]["dirt"]["recall_defects_iou10"] == 1, "argmax"
    card = (tmp_path / "out/models/card.md").read_text()
    assert "together, on val: dirt recall 0.000 and 0.000 false positives per image, damage recall 1.000 and " in card
    assert "; not reached on val by dirt |" in card
    assert "| `recall_defects_iou10` of dirt | 1.000 (1.000 to 1.000) | 0.000 (0.000 to 0.000) |" in card


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (None, "test (random): Apache-2.0"),
        (
            {"encoder": "efficientnet_lite0", "encoder_weights": "imagenet"},
            "imagenet of efficientnet_lite0: Apache-2.0",
        ),
        ({"encoder": "mit_b0", "encoder_weights": "imagenet"}, "imagenet of mit_b0: licence unknown: yours to say"),
        ({"encoder": "mit_b0", "encoder_weights": None}, "none: random ones"),
    ],
)
def test_the_card_names_the_licences_of_weights(tmp_path, student, monkeypatch, network, told):
    if network:
        config = decided_student("native").config.model_copy(
            update={"backbone": None, "network": {"architecture": "baseline"} | network}
        )
        monkeypatch.setattr(evaluate, "read_student", lambda _: (config, ""))
    build(tmp_path, exact_truth())
    text = (tmp_path / "params.yaml").read_text().replace("/somewhere/vit_b", "vit_b")
    (tmp_path / "params.yaml").write_text(text.replace("backbone: embedded", "backbone: efficientnet_lite0"))
    run(tmp_path)
    card = (tmp_path / "out/models/card.md").read_text()
    assert f"| weights it started from | {told} |" in card
    assert "| weights of the SAM teacher | vit_b: Apache-2.0 |" in card


def test_a_name_ends_no_cell_of_the_card_and_is_no_html():
    result = {"operating_point": {}, "test": None, "test_not_scored": "no images"}
    text = as_markdown("run", {"facts": [["task", "defects: a|<b>"]], "not_tested": ["any but <b>."]}, result)
    assert {r"| task | defects: a\|&lt;b> |", "- any but &lt;b>."} <= set(text.splitlines())


def test_without_a_wish_argmax_stays_and_is_scored_once(tmp_path, student):
    build(tmp_path, exact_truth() | {f"val/p{i}": labels_of(i, size) for i, size in enumerate(SIZES_HW[:2])})
    point = run(tmp_path)["operating_point"]
    assert (point["wish"], point["chosen_on"], point["test"]) == ("argmax", "human masks of val", None)
    assert point["by_seed"][0]["thresholds"] is None
    assert (tmp_path / "out/models/4/student.json").read_text() == "student.json of 4"
    card = (tmp_path / "out/models/card.md").read_text()
    assert "Not tested" in card
    assert point["by_seed"][0]["temperature"] == 0.5, "all is right, and said to be a little less sure"
    assert "| temperature of confidences | 0.5, fitted on human masks of val |" in card


def test_the_first_seed_keeps_its_probabilities_for_the_report(tmp_path, student):
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", seeds=(4, 5))
    run(tmp_path)
    first, second = (list(stream_predictions(tmp_path / f"out/predictions/{seed}/test.parquet")) for seed in (4, 5))
    assert [row["shares_png"] for row in second] == [None] * 3
    shares = decode_shares(first[1]["shares_png"], 2)
    labels = labels_of(1, SIZES_HW[1])
    np.testing.assert_array_equal(shares, [(labels == label) * (STEPS - 1) for label in (1, 2)])


@pytest.mark.parametrize("point", ["argmax", "{recall: 1.0}"])
def test_shards_of_a_job_array_give_the_scores_of_one_run_and_are_predicted_once(tmp_path, student, monkeypatch, point):
    """Shards of one image, of each seed 2 of val and 3 of test. With a wish val's come twice, and all but the first of
    them need all of these."""
    count, parts = (10, ("3-7", "0-2", "8-99")) if point == "argmax" else (14, ("5-10", "0-4", "11-99"))
    build(tmp_path, exact_truth())
    write_params(tmp_path, "native", seeds=(4, 5), point=point)
    wanted = run(tmp_path, "whole")
    monkeypatch.setattr(predicting, "SHARD_IMAGES", 1)
    monkeypatch.setattr(seed_runs, "SHARD_IMAGES", 1)
    student.seen_hw.clear()
    for shards in parts:
        with pytest.raises(FileNotFoundError):  # no metrics yet
            run(tmp_path, shards=shards)
    assert len(student.seen_hw) == count
    assert run(tmp_path) == wanted
    assert len(student.seen_hw) == count
    for name in ("4/val.parquet", "5/test.parquet", "scores.json", "curves.json"):
        both = [(tmp_path / out / "predictions" / name).read_bytes() for out in ("whole", "out")]
        assert both[0] == both[1]
    with pytest.raises(UserError, match=f"--shards {count}: there are {count} shards, 0 to {count - 1}"):
        run(tmp_path, shards=str(count))


def test_where_another_run_removed_a_shard_that_both_use_a_rerun_gives_the_scores(tmp_path, student, monkeypatch):
    def both(*job) -> list[Done]:
        finished = run_jobs(*job)
        forget(finished)  # by the other run, whose scores are complete
        return finished

    build(tmp_path, exact_truth())
    for point, shards in (("argmax", None), ("{recall: 1.0}", "2")):  # the second needs all of val first
        write_params(tmp_path, "native", point=point)
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"has removed the .*: run it again"):
            patch.setattr(seed_runs, "run_jobs", both)
            run(tmp_path, shards=shards)
    assert run(tmp_path)["val"]["iou_bin"] == 1


def test_images_that_changed_fail_alone_and_the_rest_is_kept(tmp_path, student, monkeypatch, capsys):
    build(tmp_path, exact_truth())
    monkeypatch.setattr(predicting, "SHARD_IMAGES", 1)
    monkeypatch.setattr(seed_runs, "SHARD_IMAGES", 1)
    path = tmp_path / "set/images/val/p0.png"
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match=r"1 of 5 images failed, first val/p0: .*changed since it was ingested"):
        run(tmp_path)
    assert len(student.seen_hw) == 4 and not (tmp_path / "out/predictions").exists()
    path.write_bytes(whole)
    assert run(tmp_path)["val"]["iou_bin"] == 1
    assert len(student.seen_hw) == 5, "only the image that failed"


def test_more_than_2_gib_of_label_maps_are_read_one_after_another(tmp_path):
    """More than int32 offsets count: 22 times 100 MB, of zeros, which Parquet packs into nothing."""
    build(tmp_path, {})
    folder, count, size = tmp_path / "masks/val", 22, 100 * 2**20
    row = next(stream_masks(folder))
    shutil.rmtree(folder)
    write_split(folder, ([row | {"label_map": {"bytes": bytes(size), "path": None}}], []))
    for index in range(1, count):
        for kind in ("label_maps", "candidates"):
            os.link(folder / f"{kind}/00000.parquet", folder / f"{kind}/{index:05d}.parquet")
    write_index(folder, [Shard(index, 1, {}) for index in range(count)])
    found = predicting.references("val", tmp_path / "tables", tmp_path / "masks", tmp_path / "truth", predicting.SAM)
    assert sum(len(row["reference"]) for row in found) == count * size > 2**31


def test_human_masks_out_of_the_order_of_the_images_are_refused(tmp_path, student):
    build(tmp_path, exact_truth())
    table = pq.read_table(tmp_path / "truth/test.parquet")
    write_table(tmp_path / "truth/test.parquet", TRUTH, table.to_pylist()[::-1])
    with pytest.raises(UserError, match=r"test.parquet: mask of test/p1, which images.parquet lacks or has elsewhere"):
        run(tmp_path)


@pytest.mark.parametrize("size", [1, 256])
def test_a_human_mask_after_the_last_image_is_refused_where_shards_end_with_the_images_too(
    tmp_path, student, monkeypatch, size
):
    build(tmp_path, exact_truth())
    rows = pq.read_table(tmp_path / "truth/test.parquet").to_pylist()
    write_table(tmp_path / "truth/test.parquet", TRUTH, [*rows, rows[-1] | {"image_id": "test/p9"}])
    for module in (predicting, seed_runs):
        monkeypatch.setattr(module, "SHARD_IMAGES", size)
    with pytest.raises(UserError, match=r"test.parquet: mask of test/p9, which images.parquet lacks or has elsewhere"):
        run(tmp_path)
