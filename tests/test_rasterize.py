"""From tables and images to pseudo-mask shards, with a tiny random teacher."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import ImageEncoderViT, TwoWayTransformer

from stages import rasterize
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.common.workdir import work_folder
from stages.data.boxes import corners
from stages.data.tables import BOXES, IMAGES, Dataset, decode_label_map, read_table, write_dataset, write_table
from stages.engine.engines import run_jobs
from stages.engine.shard_jobs import Done, forget
from stages.masks import rle
from stages.masks.labelmap import Chosen, draw_label_map
from stages.masks.shards import shard_indices
from stages.teacher import answers, rasterizing
from stages.teacher.sam import build_sam, save_sam
from stages.teacher.windows import crop_window
from tests.support.mask_shards import read_candidates, read_masks
from tests.support.tiny_teacher import TINY, count_encoded, params_of, tiny_sam

SIZES_HW = {"train/a": (40, 72), "train/b": (90, 31), "train/c": (50, 50), "val/a": (33, 47)}
BOXES_OF = {
    "train/a": [(0, 4.0, 5.0, 30.0, 22.0), (1, 10.0, 8.0, 20.0, 16.0)]
    + [(0, 50.0 + i, 20.0, 60.0 + i, 30.0) for i in range(9)],
    "train/b": [(1, 2.5, 60.0, 28.0, 89.0)],
    "val/a": [(0, 0.0, 0.0, 47.0, 33.0)],
}


@pytest.fixture
def tables(tmp_path) -> Path:
    """Tables of four images, one of them without a box, and an empty test split."""
    root, tables, rng = tmp_path / "set", tmp_path / "tables", np.random.default_rng(0)
    write_dataset(tables / "dataset.json", Dataset(root, ("dirt", "damage")))
    for split in ("train", "val", "test"):
        images, boxes = [], []
        for image_id in sorted(key for key in SIZES_HW if key.startswith(split)):
            path = root / f"images/{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = SIZES_HW[image_id]
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
            status = "labelled" if image_id in BOXES_OF else "missing"
            images.append(
                dict(
                    zip(
                        IMAGES.names,
                        (image_id, split, f"images/{image_id}.png", sha256_file(path), 1, height, width, status),
                        strict=True,
                    )
                )
            )
            for line, (class_id, *box) in enumerate(BOXES_OF.get(image_id, []), start=1):
                boxes.append(
                    dict(
                        zip(
                            BOXES.names,
                            (f"{image_id}:{line}", image_id, class_id, *box, "label.txt", line, None),
                            strict=True,
                        )
                    )
                )
        write_table(tables / split / "images.parquet", IMAGES, images)
        write_table(tables / split / "boxes.parquet", BOXES, boxes)
    return tables


@pytest.fixture
def rasterized(tables, tmp_path):
    """A function that runs the stage with some parameters changed and returns the folder of masks."""
    save_sam(tmp_path / "weights", tiny_sam(), TINY)

    def run(name="masks", shards=None, **changed) -> Path:
        params = tmp_path / "params.yaml"
        params.write_text(json.dumps({"rasterize": params_of().model_dump() | changed}))
        where = {"tables": tables, "weights": tmp_path / "weights", "out": tmp_path / name}
        rasterize.main(**where, params=params, device="cpu", shards=shards)
        return tmp_path / name

    return run


def candidates_of(folder: Path) -> list[dict]:
    return read_candidates(folder).to_pylist()


@pytest.mark.parametrize("view", ["whole", "crop"])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_label_maps_show_the_chosen_candidates_at_native_size(rasterized, view, margin):
    folder = rasterized(view=view, clip_margin=margin) / "train"
    rows = candidates_of(folder)
    for image in read_masks(folder).to_pylist():
        labels = decode_label_map(image["label_map"]["bytes"])
        assert labels.shape == SIZES_HW[image["image_id"]] == (image["height"], image["width"])
        mine = [row for row in rows if row["image_id"] == image["image_id"] and row["chosen"]]
        assert len(mine) == image["n_boxes"] == len(BOXES_OF.get(image["image_id"], []))
        chosen = [Chosen(row["rle"], row["class_id"], corners(row)) for row in mine]
        np.testing.assert_array_equal(labels, draw_label_map(chosen, labels.shape, margin))
    assert any(decode_label_map(image["label_map"]["bytes"]).any() for image in read_masks(folder).to_pylist())


def test_rows_are_by_image_label_line_and_candidate(rasterized):
    folder = rasterized() / "train"
    assert read_masks(folder)["image_id"].to_pylist() == ["train/a", "train/b", "train/c"]
    rows = candidates_of(folder)
    boxes = [f"train/a:{line}" for line in range(1, 12)] + ["train/b:1"]
    assert [(row["box_id"], row["cand_idx"]) for row in rows] == [(box, index) for box in boxes for index in range(5)]


@pytest.mark.parametrize("candidate", ["single", "best", "refined"])
def test_one_candidate_per_box_is_chosen_as_the_parameter_says(rasterized, candidate):
    rows = candidates_of(rasterized(candidate=candidate) / "train")
    for start in range(0, len(rows), 5):
        scores = [row["sam_pred_iou"] for row in rows[start : start + 5]]
        expected = {"single": 0, "best": 1 + scores[1:4].index(max(scores[1:4])), "refined": 4}[candidate]
        assert [row["chosen"] for row in rows[start : start + 5]] == [index == expected for index in range(5)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_box_of_no_image_is_refused_in_the_last_split_too(rasterized, tables, split):
    path = tables / split / "boxes.parquet"
    row = read_table(tables / "train/boxes.parquet", BOXES).to_pylist()[0]
    rows = [*read_table(path, BOXES).to_pylist(), row | {"image_id": f"{split}/zz", "box_id": f"{split}/zz:1"}]
    write_table(path, BOXES, rows)
    with pytest.raises(UserError, match=rf"boxes.parquet: box of {split}/zz, which images.parquet lacks"):
        rasterized()


def test_outside_its_crop_a_mask_is_empty(rasterized):
    rows = candidates_of(rasterized(view="crop", clip_margin=None) / "train")
    assert any(row["area"] for row in rows)
    for row in rows:
        size_hw = SIZES_HW[row["image_id"]]
        x1, y1, x2, y2 = crop_window(corners(row), size_hw, 1.8, 16)
        mask = rle.decode(row["rle"], size_hw)
        assert mask.sum() == row["area"] == mask[y1:y2, x1:x2].sum()
        assert x1 <= row["x1"] and row["x2"] <= x2 and y1 <= row["y1"] and row["y2"] <= y2


def test_an_image_without_boxes_needs_no_network_and_is_background(rasterized, monkeypatch):
    seen = []
    monkeypatch.setattr(
        answers, "read_image", lambda *a, read=answers.read_image: seen.append(a[1]["path"]) or read(*a)
    )
    empty = read_masks(rasterized() / "train").to_pylist()[2]
    assert sorted(seen) == ["images/train/a.png", "images/train/b.png", "images/val/a.png"]
    assert empty["label_status"] == "missing" and empty["n_boxes"] == 0
    assert not decode_label_map(empty["label_map"]["bytes"]).any()


def test_the_same_inputs_give_the_same_bytes(rasterized):
    first, second = rasterized("first", view="crop"), rasterized("second", view="crop")
    files = sorted(path.relative_to(first) for path in first.rglob("*.parquet"))
    assert len(files) == 8
    assert [(first / path).read_bytes() for path in files] == [(second / path).read_bytes() for path in files]


@pytest.fixture
def encoded(monkeypatch):
    """Counts the views that the network encodes."""
    return count_encoded(monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_what_acts_after_the_candidates_needs_no_network_and_gives_the_bytes_of_a_fresh_run(
    rasterized, encoded, monkeypatch, tmp_path
):
    rasterized(candidate="best", clip_margin=0.1)
    assert sum(encoded) == 3
    changed = files(rasterized(candidate="single", clip_margin=None, shard_size=100))
    assert sum(encoded) == 3
    (tmp_path / "elsewhere/.dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    assert files(rasterized(candidate="single", clip_margin=None, shard_size=100)) == changed
    assert sum(encoded) == 6


@pytest.mark.parametrize(
    "changed",
    [{"view": "crop"}, {"context": 2.0}, {"min_view_px": 17}, {"min_scale": 1.5}, {"min_part": 0.2}, {"batch_size": 3}],
)
def test_a_parameter_that_reaches_the_network_prompts_it_again(rasterized, encoded, changed):
    rasterized()
    before = len(encoded)
    rasterized(**changed)
    assert len(encoded) > before


def test_another_teacher_is_prompted_again_and_of_new_boxes_only_those(rasterized, encoded, tables, tmp_path):
    rasterized()
    images = read_table(tables / "train/images.parquet", IMAGES).to_pylist()
    boxes = read_table(tables / "train/boxes.parquet", BOXES).to_pylist()
    box = {**boxes[0], "box_id": "train/c:1", "image_id": "train/c", "class_id": 1, "line": 1}
    write_table(tables / "train/boxes.parquet", BOXES, [*boxes, box])
    del encoded[:]
    rasterized()
    assert encoded == [1]
    renamed = [{**image, "image_id": image["image_id"].replace("train", "train/x")} for image in images]
    write_table(tables / "train/images.parquet", IMAGES, renamed)
    moved = [{**row, "image_id": row["image_id"].replace("train", "train/x"), "class_id": 1} for row in [*boxes, box]]
    write_table(tables / "train/boxes.parquet", BOXES, moved)
    rasterized()
    assert encoded == [1], "a new name or another class needs no new answer"
    torch.manual_seed(1)
    save_sam(tmp_path / "weights", build_sam(TINY), TINY)
    rasterized()
    assert sum(encoded) == 1 + 4


def test_a_damaged_answer_is_reported_and_made_again(rasterized, encoded, capsys):
    before = files(rasterized())
    cached = [path for path in (work_folder() / "candidates").rglob("*") if path.is_file()]
    assert len(cached) == 3
    for path, spoil in zip(cached, (b"", b"x" * 40, None), strict=True):
        path.write_bytes(path.read_bytes()[:-1] if spoil is None else spoil)
    del encoded[:]
    assert files(rasterized()) == before
    assert sum(encoded) == 3
    assert capsys.readouterr().err.count("damaged, computed again") == 3


def test_out_of_gpu_memory_halves_the_boxes_at_once(rasterized, monkeypatch, capsys):
    """Memory for two boxes; images have 11, 1 and 1. The results are the same but for the last bits."""
    monkeypatch.setattr(answers, "MAX_IMAGES_AT_ONCE", 1)
    before = candidates_of(rasterized(view="crop", batch_size=16) / "train")
    sizes, forward = [], TwoWayTransformer.forward

    def short_of_memory(self, image, positions, points):
        sizes.append(len(points))
        if len(points) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, image, positions, points)

    monkeypatch.setattr(TwoWayTransformer, "forward", short_of_memory)
    after = candidates_of(rasterized(view="crop", batch_size=15) / "train")
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1, 1, 1]
    assert "out of GPU memory: from here on 2 boxes at once" in capsys.readouterr().err
    assert [row["box_id"] for row in after] == [row["box_id"] for row in before]
    np.testing.assert_allclose(*([row["sam_pred_iou"] for row in rows] for rows in (before, after)), rtol=1e-4)


def test_no_memory_for_a_single_box_is_a_user_error(rasterized, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ImageEncoderViT, "forward", no_memory)
    with pytest.raises(UserError, match="out of GPU memory with a single box"):
        rasterized()


def test_images_side_by_side_give_the_bytes_of_one_after_the_other(rasterized, monkeypatch, tmp_path):
    monkeypatch.setattr(answers.os, "cpu_count", lambda: 3)
    written = {}
    for name, at_once in (("together", 8), ("alone", 1)):
        monkeypatch.setattr(answers, "MAX_IMAGES_AT_ONCE", at_once)
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / name))  # nothing is cached from the other
        (tmp_path / name / ".dvc").mkdir(parents=True)
        written[name] = files(rasterized(f"masks_{name}", view="crop"))
    assert written["together"] == written["alone"]


def test_shards_hold_the_same_rows_however_many_images_each_has(rasterized):
    two, all_ = rasterized("two", shard_size=2) / "train", rasterized("all", shard_size=100) / "train"
    assert shard_indices(two) == [0, 1] and shard_indices(all_) == [0]
    assert read_masks(two).equals(read_masks(all_))
    assert read_candidates(two).equals(read_candidates(all_))


def test_a_split_that_the_data_set_lacks_is_an_empty_shard(rasterized):
    folder = rasterized() / "test"
    assert len(read_masks(folder)) == len(read_candidates(folder)) == 0


def test_an_image_that_changed_since_ingest_stops_the_stage_and_leaves_the_last_masks(rasterized, tmp_path):
    folder = rasterized() / "train"
    before = read_masks(folder)
    with (tmp_path / "set/images/train/b.png").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"1 of 4 images failed, first train/b: .*b\.png: changed since"):
        rasterized(view="crop")  # the answers of the first run are still those of the images in the tables
    assert read_masks(folder).equals(before)
    assert not list(tmp_path.rglob("*.part"))


def test_job_arrays_leave_shards_that_a_run_without_a_range_puts_together(rasterized, monkeypatch, tmp_path, capsys):
    """Shards of one image: train has 3, val 1, test 1 without an image."""
    whole = rasterized("whole", shard_size=1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "array"))  # nothing is cached from the other
    (tmp_path / "array/.dvc").mkdir(parents=True)
    for part in ("3-4", "0", "1-2"):
        assert not rasterized("some", shards=part, shard_size=1).exists()
    assert "shards 3-4 of 5 are done; without --shards the command completes the masks" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(rasterizing, "load_teacher", lambda *_: pytest.fail("nothing is left to do"))
        together = rasterized("together", shard_size=1)
    assert files(together) == files(whole)
    assert not list((work_folder() / "shards").rglob("*.parquet"))
    with pytest.raises(UserError, match="--shards 5-9: there are 5 shards, 0 to 4"):
        rasterized("some", shards="5-9", shard_size=1)


def test_where_another_run_removed_the_shards_that_both_use_a_rerun_writes_the_masks(rasterized, monkeypatch):
    def both(*job) -> list[Done]:
        finished = run_jobs(*job)
        forget(finished)  # by the other run, whose masks are complete
        return finished

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"has removed the .*: run it again"):
        patch.setattr(rasterize, "run_jobs", both)
        rasterized()
    assert len(read_masks(rasterized() / "train")) == 3


def test_the_index_names_what_each_file_has_to_be(rasterized):
    folder = rasterized() / "train"
    index = json.loads((folder / "shards.json").read_text())
    assert [(shard["index"], shard["rows"]) for shard in index] == [(0, 2), (1, 1)]
    for shard in index:
        hashes = {kind: sha256_file(folder / f"{kind}/{shard['index']:05d}.parquet") for kind in shard["sha256"]}
        assert shard["sha256"] == hashes and set(hashes) == {"label_maps", "candidates"}


def test_after_an_image_failed_a_rerun_prompts_for_it_alone(rasterized, encoded, tmp_path):
    path = tmp_path / "set/images/train/b.png"
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="1 of 4 images failed"):
        rasterized()
    assert sum(encoded) == 2 and not (tmp_path / "masks").exists()
    path.write_bytes(whole)
    rasterized()
    assert sum(encoded) == 3
