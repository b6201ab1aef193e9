"""Index PNGs that people corrected, and the images that their names mean."""

import numpy as np
import pytest
from PIL import Image

from stages.formats.correction import KnownImages, Refused, UnknownImage
from stages.formats.corrections_in import read_corrections

ROWS = [
    {"path": path, "sha256": "0" * 64, "height": 12, "width": 20}
    for path in ("images/train/a.jpg", "images/val/a.jpg", "images/train/b.c.png", "images/train/d.jpg")
]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("images/train/a.jpg", "images/train/a.jpg"),
        ("train/a", "images/train/a.jpg"),
        ("/mnt/set/images/val/a.jpg", "images/val/a.jpg"),
        ("b.c", "images/train/b.c.png"),
        ("d.jpg", "images/train/d.jpg"),
    ],
)
def test_an_image_is_found_with_folders_more_or_fewer_and_without_its_suffix(name, path):
    assert KnownImages(ROWS).find(name)["path"] == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a.jpg", "could be any of 2"), ("test/d.jpg", "no image"), ("b", "no image"), ("d.png", "no image"), ("", "no")],
)
def test_a_name_of_no_image_or_of_several_is_refused(name, reason):
    with pytest.raises(UnknownImage, match=reason):
        KnownImages(ROWS).find(name)


def test_masks_are_read_by_name_and_what_does_not_fit_is_refused_one_by_one(tmp_path):
    labels = np.zeros((12, 20), np.uint8)
    labels[3:9, 4:18] = 2
    labels[5, 6:8] = 255
    for name, map_ in {"train/a": labels, "val/a": labels.T, "b.c": labels * 3, "nobody": labels}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(map_)).save(f"{tmp_path / name}.png")
    found = list(read_corrections(tmp_path, KnownImages(ROWS), ["dirt", "damage"]))
    refused = {one.name: one.reason for one in found if isinstance(one, Refused)}
    assert refused["val/a"] == "mask is 12 x 20, the upright image 20 x 12"
    assert refused["b.c"].startswith("value 6, allowed are 0 (background), 1-2")
    assert refused["nobody"] == "no image of the data set has this name"
    (good,) = (one for one in found if not isinstance(one, Refused))
    assert (good.path, good.size_hw, good.source) == ("images/train/a.jpg", (12, 20), str(tmp_path / "train/a.png"))
    np.testing.assert_array_equal(good.label_map, labels)
