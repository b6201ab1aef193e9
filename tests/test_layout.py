"""All forms of Ultralytics' data.yaml, and the images, labels and masks that belong to it."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.ingestion.counterparts import Counterparts, image_id, label_path
from stages.ingestion.data_yaml import OUTSIDE, class_names
from stages.ingestion.file_names import HIDDEN
from stages.ingestion.layout import orphans, read_layout


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def lay(root: Path, **keys: object) -> Path:
    """A data set of three images, with `keys` over the usual data.yaml."""
    touch(root, "images/train/a.jpg", "images/train/deep/b.PNG", "images/val/c.jpeg")
    config = {"path": ".", "train": "images/train", "val": "images/val", "names": ["dirt", "damage"]} | keys
    (root / "data.yaml").write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))
    return root


def paths(root: Path, split: str) -> list[str] | None:
    images = read_layout(root).splits[split]
    return None if images is None else [image.path for image in images]


def test_folders_are_searched_through_and_sorted_by_id(tmp_path):
    layout = read_layout(lay(tmp_path))
    assert [(image.image_id, image.path, image.problem) for image in layout.splits["train"]] == [
        ("train/a", "images/train/a.jpg", None),
        ("train/deep/b", "images/train/deep/b.PNG", None),
    ]
    assert [image.image_id for image in layout.splits["val"]] == ["val/c"]
    assert layout.splits["test"] is None
    assert layout.names == ("dirt", "damage")
    assert not layout.ignored


@pytest.mark.parametrize(
    "train",
    ["images/train", "./images/train/", ["images/train"], ["images/train", "images/train/deep"], "../images/train"],
)
def test_every_way_to_name_a_folder(tmp_path, train):
    """The last one is what Roboflow exports, read as Ultralytics reads it."""
    assert paths(lay(tmp_path / "set", train=train), "train") == ["images/train/a.jpg", "images/train/deep/b.PNG"]


def test_path_is_relative_to_the_folder_of_data_yaml(tmp_path):
    lay(tmp_path, path="sub", train="images/x", val="images/y")
    touch(tmp_path, "sub/images/x/1.bmp", "sub/images/y/2.webp")
    assert paths(tmp_path, "train") == ["sub/images/x/1.bmp"]


def test_absolute_paths_inside_the_root_are_taken(tmp_path, monkeypatch):
    lay(tmp_path / "set", path=str(tmp_path / "set"), train=str(tmp_path / "set/images/train"))
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "set", Path("set")):
        assert paths(root, "train") == ["images/train/a.jpg", "images/train/deep/b.PNG"]


def test_a_list_file_names_images(tmp_path):
    lay(tmp_path, train=["lists/train.txt"])
    touch(tmp_path, "lists/near.jpg", "images/.more/b.jpg")
    listing = (
        "\ufeffimages/train/a.jpg\r\nimages/.more/b.jpg\r\n\r\n./near.jpg\nimages/train/a.jpg\n../x.jpg\nmissing.jpg\n"
    )
    (tmp_path / "lists/train.txt").write_bytes(listing.encode() + b"images/\xff.jpg\n")
    images = read_layout(tmp_path).splits["train"]
    assert {image.path: image.problem for image in images} == {
        "images/train/a.jpg": None,
        "images/.more/b.jpg": HIDDEN,
        "lists/near.jpg": None,
        "../x.jpg": OUTSIDE,
        "missing.jpg": None,
        "images/\\udcff.jpg": "file name is not valid UTF-8",
    }


def test_two_files_with_one_stem_are_both_refused(tmp_path):
    touch(lay(tmp_path), "images/train/a.png")
    problems = {image.path: image.problem for image in read_layout(tmp_path).splits["train"]}
    assert problems["images/train/a.jpg"] == problems["images/train/a.png"] == "2 images share one name stem"
    assert problems["images/train/deep/b.PNG"] is None


def test_two_files_with_one_stem_in_two_splits_are_both_refused_and_one_file_in_two_is_not(tmp_path):
    touch(lay(tmp_path, train="train.txt", val="val.txt"), "images/train/a.png")
    (tmp_path / "train.txt").write_text("images/train/a.jpg\nimages/val/c.jpeg\n")
    (tmp_path / "val.txt").write_text("images/train/a.png\nimages/val/c.jpeg\n")
    problems = [
        (image.path, image.problem) for images in read_layout(tmp_path).splits.values() for image in images or ()
    ]
    shared, both = "2 images share one name stem", ("images/val/c.jpeg", None)
    assert sorted(problems, key=str) == [("images/train/a.jpg", shared), ("images/train/a.png", shared), both, both]


def test_an_id_is_unique_where_a_whole_path_is_what_another_image_has(tmp_path):
    touch(lay(tmp_path, train=["train", "images/train"]), "train/a.jpg", "images/train/train/a.jpg")
    images = read_layout(tmp_path).splits["train"]
    assert {image.path: image.image_id for image in images} == {
        "train/a.jpg": "train/train/a",
        "images/train/a.jpg": "train/images/train/a",
        "images/train/train/a.jpg": "train/images/train/train/a",
        "images/train/deep/b.PNG": "train/deep/b",
    }


def test_files_that_are_no_images_are_listed_and_hidden_ones_skipped(tmp_path):
    touch(lay(tmp_path), "images/train/d.heic", "images/train/._a.jpg", "images/train/.cache/a.jpg")
    touch(tmp_path, "images/train/a.txt", "elsewhere/z.jpg")
    (tmp_path / "images/train/linked").symlink_to(tmp_path / "elsewhere")
    layout = read_layout(tmp_path)
    assert [image.path for image in layout.splits["train"] if not image.problem] == [
        "images/train/a.jpg",
        "images/train/deep/b.PNG",
    ]
    assert sorted((reject.file, reject.kind) for reject in layout.ignored) == [
        ("images/train/linked", "linked_folder"),
    ]


def test_a_path_that_leads_out_and_back_in_is_the_root(tmp_path):
    root = lay(tmp_path / "set", path="../set")
    assert paths(root, "train") == ["images/train/a.jpg", "images/train/deep/b.PNG"]


def test_a_split_folder_may_be_a_link_inside_the_root_only(tmp_path):
    root = lay(tmp_path / "set", train="images/linked")
    (root / "images/linked").symlink_to(root / "images/train")
    assert paths(root, "train") == ["images/linked/a.jpg", "images/linked/deep/b.PNG"]
    (root / "images/linked").unlink()
    (root / "images/linked").symlink_to(touch(tmp_path / "other", "a.jpg"))
    with pytest.raises(UserError, match=r"train = 'images/linked': .*leads out of the data root"):
        read_layout(root)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"val": "absent"}, "no `val`"),
        ({"train": None}, "no `train`"),
        ({"train": "images/nowhere"}, "train = 'images/nowhere': .* does not exist"),
        ({"train": 3}, "train = '3': .* does not exist"),
        ({"train": []}, r"train = \[\]: no images found"),
        ({"train": ["images/train", {}]}, r"train = {}: expected a path"),
        ({"train": "data.yaml"}, "expected a folder or a .txt list"),
        ({"train": "/etc"}, "train = '/etc': leads out of the data root"),
        ({"train": "../../up"}, "train = '../../up': leads out of the data root"),
        ({"path": ["a"]}, r"path = \['a'\]: expected a path"),
        ({"names": "absent"}, "names = None: expected a list"),
        ({"nc": 3}, "nc = 3, but names has 2"),
    ],
)
def test_a_wrong_data_yaml_is_refused_by_key_and_value(tmp_path, keys, message):
    with pytest.raises(UserError, match=message) as caught:
        read_layout(lay(tmp_path, **keys))
    assert "data.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keys", [{"path": ".data"}, {"train": [".data/images/train"]}, {"val": ".val.txt"}])
def test_what_the_fingerprint_does_not_see_is_refused(tmp_path, keys):
    touch(tmp_path, ".data/images/train/a.jpg", ".data/images/val/a.jpg", ".val.txt")
    with pytest.raises(UserError, match=r"(path|train|val) = '\.[^']*': hidden, and hidden .* are not read; allowed"):
        read_layout(lay(tmp_path, **keys))


@pytest.mark.parametrize("test", ["images/test", "../test/images", "test.txt"])
def test_a_test_split_that_is_not_there_or_empty_is_none_and_noted(tmp_path, test):
    lay(tmp_path / "set", test=test)
    for reason in ("not there", "no images found"):
        layout = read_layout(tmp_path / "set")
        assert layout.splits["test"] is None
        assert [(note.file, note.reason) for note in layout.ignored] == [
            ("data.yaml", f"test = {test!r}: {reason}, so there is no test split")
        ]
        place = tmp_path / "set" / test.removeprefix("../")
        place.touch() if place.suffix else place.mkdir(parents=True, exist_ok=True)


def test_an_empty_val_is_refused(tmp_path):
    (lay(tmp_path, val="images/none") / "images/none").mkdir()
    with pytest.raises(UserError, match="val = 'images/none': no images found"):
        read_layout(tmp_path)


def test_a_folder_without_data_yaml_is_refused(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="must be the folder that holds"):
            read_layout(root)


def test_validation_is_a_synonym_of_val(tmp_path):
    assert paths(lay(tmp_path, val="absent", validation="images/val"), "val") == ["images/val/c.jpeg"]


def test_class_names_as_list_mapping_or_count():
    for config in (
        {"names": ["a", "b"]},
        {"names": {"1": "b", "0": "a"}},
        {"names": ["a", "b"], "nc": "2"},
    ):
        assert class_names(config, "x") == ("a", "b")
    assert class_names({"nc": "2"}, "x") == ("class_0", "class_1")


@pytest.mark.parametrize(
    "names",
    [
        [],
        {},
        {1: "a"},
        {0: "a", 2: "b"},
        {"0": "a", 0: "b"},
        "ab",
        3,
        None,
        [None],
        [True],
        ["a", " "],
        [["a"]],
        ["a", "a"],
    ],
)
def test_invalid_class_names_are_refused(names):
    with pytest.raises(UserError, match="x: names = "):
        class_names({"names": names}, "x")


def test_more_classes_than_a_label_map_holds_are_refused():
    assert len(class_names({"names": [str(index) for index in range(254)]}, "x")) == 254
    with pytest.raises(UserError, match="255 classes; at most 254"):
        class_names({"names": [str(index) for index in range(255)]}, "x")


@pytest.mark.parametrize(
    ("image", "identity", "label", "mask"),
    [
        ("images/test/a/b.01.jpg", "test/a/b.01", "labels/test/a/b.01.txt", "masks/test/a/b.01.png"),
        ("test/images/b.png", "test/b", "test/labels/b.txt", "test/masks/b.png"),
        ("siteA/images/b.png", "test/siteA/b", "siteA/labels/b.txt", "siteA/masks/b.png"),
        ("images/x/images/b.png", "test/images/x/b", "images/x/labels/b.txt", "images/x/masks/b.png"),
        ("images/test2/b.png", "test/test2/b", "labels/test2/b.txt", "masks/test2/b.png"),
        ("images/images.png", "test/images", "labels/images.txt", "masks/images.png"),
        ("images/test.png", "test/test", "labels/test.txt", "masks/test.png"),
        ("test/b.png", "test/b", "test/b.txt", None),
        ("b.png", "test/b", "b.txt", None),
    ],
)
def test_labels_masks_and_ids_follow_from_the_path(image, identity, label, mask):
    assert image_id("test", image) == identity
    assert label_path(image) == label
    assert Counterparts(Path("nowhere")).mask(image) == mask


def test_labels_and_masks_without_an_image_are_found(tmp_path):
    lay(tmp_path)
    touch(tmp_path, "labels/train/a.txt", "labels/train/deep/b.txt", "labels/val/c.txt", "masks/val/c.png")
    touch(tmp_path, "labels/train/classes.txt", "labels/val.cache", "labels/train/.hidden.txt")
    assert not orphans(read_layout(tmp_path))
    touch(tmp_path, "labels/train/x.txt", "labels/train/gone/a.txt", "masks/val/y.png", "labels/val/notes.md")
    touch(tmp_path, "labels/train/a.TXT", "masks/val/c.PNG", "masks/val/c.jpg")
    found = [(reject.file, reject.reason) for reject in orphans(read_layout(tmp_path))]
    assert sorted(found) == [
        ("labels/train/a.TXT", "a.txt is read instead"),
        ("labels/train/gone/a.txt", "label file without an image: there is no image images/train/gone/a.*"),
        ("labels/train/x.txt", "label file without an image: there is no image images/train/x.*"),
        ("masks/val/c.PNG", "c.png is read instead"),
        ("masks/val/c.jpg", "masks are read from files that end in .png"),
        ("masks/val/y.png", "mask file without an image: there is no image images/val/y.*"),
    ]


def test_an_image_that_no_list_names_has_no_orphan_label(tmp_path):
    lay(tmp_path, train="train.txt")
    touch(tmp_path, "labels/train/a.txt", "labels/train/deep/b.txt")
    (tmp_path / "train.txt").write_text("images/train/a.jpg\n")
    assert not orphans(read_layout(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode), st.just(b"[" * 5000)))
def test_any_bytes_for_data_yaml_are_one_line(tmp_path, data):
    (tmp_path / "data.yaml").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_layout(tmp_path)
    assert "\n" not in str(caught.value)


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["images/train", ".", ".."])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(["path", "train", "val", "test", "names", "nc"]), values))
def test_any_values_in_data_yaml_are_read_or_one_line(tmp_path, keys):
    lay(tmp_path, **keys)
    try:
        layout = read_layout(tmp_path)
    except UserError as error:
        assert "data.yaml" in str(error)
    else:
        assert layout.names and layout.splits["train"]
