"""The demo data set as a whole: reproducible, complete, consistent with its renderer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.demo.blade_defects import NAMES
from stages.demo.config import SynthesizeParams
from stages.demo.scene import SIZE_HW, make_sample
from stages.synthesize import DATA_YAML, main, write_dataset

BASE = {
    "seed": 3, "train": 4, "val": 2, "test": 3,
    "defect_free": 0.25, "subtle": 0.3, "unboxed_subtle": 0.25, "contrast": 1.0,
}  # fmt: skip


def params(**changes) -> SynthesizeParams:
    return SynthesizeParams(**{**BASE, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder, params(), workers=1)
    return folder


def test_workers_and_reruns_change_no_byte(dataset, tmp_path):
    write_dataset(tmp_path, params(), workers=2)
    assert contents(tmp_path) == contents(dataset)


def test_more_images_leave_the_earlier_ones_alone(dataset, tmp_path):
    write_dataset(tmp_path, params(train=2, val=3, test=0), workers=1)
    earlier, smaller = contents(dataset), contents(tmp_path)
    assert any(name not in earlier for name in smaller)
    assert all(earlier[name] == smaller[name] for name in smaller if name in earlier)


def test_another_seed_gives_another_data_set():
    assert make_sample(params(), "train", 0).jpeg != make_sample(params(seed=4), "train", 0).jpeg


def test_splits_share_no_image():
    assert make_sample(params(), "train", 0).jpeg != make_sample(params(), "test", 0).jpeg


def test_every_image_has_truth_of_its_own_size(dataset):
    images = sorted(dataset.glob("images/*/*.jpg"))
    assert len(images) == 9
    for path in images:
        with Image.open(path) as image, Image.open(dataset / "masks" / path.parent.name / f"{path.stem}.png") as mask:
            assert image.mode == "RGB"
            assert mask.mode == "L"
            assert image.size == mask.size == (586, 371)
            assert set(np.unique(np.asarray(mask))) <= set(range(len(NAMES) + 1))


def test_label_files_hold_boxes_inside_the_image_and_known_classes(dataset):
    lines = [line.split() for path in dataset.glob("labels/*/*.txt") for line in path.read_text().splitlines()]
    assert lines
    for class_id, *numbers in lines:
        cx, cy, w, h = map(float, numbers)
        assert int(class_id) in range(len(NAMES))
        assert all(len(number.split(".")[1]) == 6 for number in numbers)
        assert min(w, h) > 0
        assert min(cx - w / 2, cy - h / 2) >= -1e-6
        assert max(cx + w / 2, cy + h / 2) <= 1 + 1e-6


def test_each_box_covers_most_of_truth_of_its_class(dataset):
    checked = 0
    for path in dataset.glob("labels/test/*.txt"):
        truth = np.asarray(Image.open(dataset / "masks" / "test" / f"{path.stem}.png"))
        covered = np.zeros(SIZE_HW, bool)
        for line in path.read_text().splitlines():
            class_id, cx, cy, w, h = (float(word) for word in line.split())
            y1, y2 = round((cy - h / 2) * SIZE_HW[0]), round((cy + h / 2) * SIZE_HW[0])
            x1, x2 = round((cx - w / 2) * SIZE_HW[1]), round((cx + w / 2) * SIZE_HW[1])
            assert (truth[y1:y2, x1:x2] == class_id + 1).any()
            covered[y1:y2, x1:x2] = True
            checked += 1
        assert (covered & (truth > 0)).sum() >= 0.8 * (truth > 0).sum()
    assert checked


def test_every_defect_in_test_has_a_box_and_elsewhere_only_subtle_ones_lack_one():
    hard = params(defect_free=0.0, subtle=0.6, unboxed_subtle=1.0)
    for split in ("train", "val", "test"):
        for index in range(3):
            sample = make_sample(hard, split, index)
            assert sample.defects
            for defect, box in zip(sample.defects, sample.boxes, strict=True):
                assert (box is None) == (defect.subtle and split != "test")


def test_leaving_boxes_out_changes_neither_pixels_nor_truth():
    one, other = (make_sample(params(defect_free=0.0, unboxed_subtle=share), "train", 1) for share in (0.0, 1.0))
    assert one.jpeg == other.jpeg
    assert (one.truth == other.truth).all()


def test_defect_free_images_have_empty_truth_and_no_box():
    sample = make_sample(params(defect_free=1.0), "train", 0)
    assert not sample.truth.any()
    assert sample.boxes == []


def test_an_image_without_boxes_may_lack_a_label_file(tmp_path):
    write_dataset(tmp_path, params(defect_free=1.0, train=6, val=0, test=0), workers=1)
    files = sorted(tmp_path.glob("labels/train/*.txt"))
    assert [path.stem[-1] for path in files] == ["1", "2", "3", "4"]
    assert all(path.read_text() == "" for path in files)


def test_the_command_replaces_an_older_data_set_whole(tmp_path):
    out, settings = tmp_path / "demo", tmp_path / "params.yaml"
    (out / "stale").mkdir(parents=True)
    (out / "data.yaml").write_text(DATA_YAML)
    values = {**BASE, "train": 1, "val": 0, "test": 0}
    settings.write_text("synthesize:\n" + "".join(f"  {key}: {value}\n" for key, value in values.items()))
    main(params=settings, out=out, workers=1)
    assert sorted(path.name for path in out.iterdir()) == ["data.yaml", "images", "labels", "masks"]
    assert len(list(out.glob("images/train/*.jpg"))) == 1


def test_a_folder_that_is_not_a_demo_stays(tmp_path):
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [dirt]\n")
    with pytest.raises(UserError, match="exists, and is no data set of this command"):
        main(tmp_path, Path("params.yaml"), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["data.yaml"]


@pytest.mark.parametrize("wrong", [{"subtle": 1.5}, {"train": -1}, {"contrast": 0.0}, {"fonts": 1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        params(**wrong)
