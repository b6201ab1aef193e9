"""Splits by group: all images of a group are in one split."""

import csv
import hashlib
from dataclasses import replace

import pytest

from stages.common.errors import UserError
from stages.data.tables import SPLITS
from stages.ingestion.config import SplitParams
from stages.ingestion.counterparts import image_id
from stages.ingestion.groups import split_by_group
from stages.ingestion.layout import ImageFile, Layout, read_layout
from stages.ingestion.pixel_truth import own_format
from tests.support.bad_sets import encoded, picture, put, sound
from tests.support.ingesting import images_by_id, ingest


def layout(**splits: list[str] | None) -> Layout:
    """Images by path; data.yaml names only the splits given."""
    images = {
        split: [ImageFile(split, image_id(split, path), path) for path in splits[split]] if splits.get(split) else None
        for split in SPLITS
    }
    return Layout(None, ("a",), images, [], own_format(1))


def grouped(given: Layout, group: str = r"/([^/_]+)_", **changes: object) -> dict[str, list[str]]:
    made, groups = split_by_group(given, SplitParams(**{"group": group, "val": 0.2, "test": 0.2, "seed": 0, **changes}))
    assert sum(one.images for one in groups) == sum(len(images or []) for images in made.splits.values())
    for split, images in made.splits.items():
        assert all(image.split == split and image.image_id.startswith(f"{split}/") for image in images or [])
    return {split: [image.path for image in images or []] for split, images in made.splits.items()}


def blades(count: int) -> list[str]:
    return [f"images/blade{index}_{shot}.jpg" for index in range(count) for shot in range(3)]


def name_of(path: str) -> str:
    return path.split("/")[-1].split("_")[0]


def test_a_group_goes_whole_into_one_split_and_shares_are_about_as_given():
    splits = grouped(layout(train=blades(400)))
    names = {split: {name_of(path) for path in paths} for split, paths in splits.items()}
    assert sum(map(len, names.values())) == 400 and sum(map(len, splits.values())) == 1200
    assert 60 <= len(names["val"]) <= 100 and 60 <= len(names["test"]) <= 100


def test_the_split_of_a_group_is_a_number_made_of_its_name_and_the_seed():
    """The lowest fifth goes to test, the next three tenths to val."""
    splits = grouped(layout(train=blades(60)), test=0.2, val=0.3, seed=7)
    for split, paths in splits.items():
        for path in paths:
            digest = hashlib.sha256(f"7:{name_of(path)}".encode()).digest()
            draw = int.from_bytes(digest[:8], "big") / 2**64
            assert split == ("test" if draw < 0.2 else "val" if draw < 0.5 else "train")


def test_of_several_parts_of_a_pattern_the_name_has_all():
    paths = [f"images/{site}/blade{index}_{shot}.jpg" for site in "ab" for index in range(20) for shot in range(2)]
    params = SplitParams(group=r"images/(\w+)/(\w+?)_(x)?", val=0.2, test=0.2, seed=0)
    _, groups = split_by_group(layout(train=paths), params)
    assert [group.name for group in groups] == sorted(f"{s}/blade{index}/" for s in "ab" for index in range(20))
    assert {group.images for group in groups} == {2}


def test_a_data_set_that_grows_keeps_its_splits_and_a_seed_changes_them():
    before, after = grouped(layout(train=blades(50))), grouped(layout(train=blades(80)))
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)
    assert grouped(layout(train=blades(50)), seed=1) != before


def test_given_splits_stay_and_get_all_images_of_their_groups():
    given = layout(train=blades(40), test=["images/blade7_0.jpg", "images/blade9_1.jpg"])
    splits = grouped(given)
    assert {name_of(path) for path in splits["test"]} == {"blade7", "blade9"}
    assert len(splits["test"]) == 6 and len(splits["val"]) > 0
    assert sum(map(len, splits.values())) == 120


def test_a_val_with_the_images_of_train_counts_as_absent():
    plain = layout(train=blades(50))
    assert grouped(layout(train=blades(50), val=blades(50))) == grouped(plain)
    assert grouped(replace(plain, splits=plain.splits | {"val": []})) == grouped(plain), "as does an empty one"


def test_a_test_share_of_zero_makes_no_test_split():
    assert not grouped(layout(train=blades(50)), test=0.0)["test"]


@pytest.mark.parametrize(
    ("given", "group", "message"),
    [
        (layout(train=blades(50)), "turbine", r"= 'turbine': is not found in images/blade0_0.jpg; it must be found"),
        (layout(train=blades(50)), "(images)", "none of the 1 groups falls into .* another ingest.split.seed than 0"),
        (layout(train=blades(9), val=["a_1.jpg"], test=["b_1.jpg"]), "^(.)", "data.yaml already has val and test"),
    ],
)
def test_a_data_set_that_cannot_be_split_is_refused(given, group, message):
    with pytest.raises(UserError, match=message):
        grouped(given, group)


def test_the_stage_splits_one_folder_of_images(tmp_path):
    root = sound(tmp_path / "set")
    put(root / "data.yaml", "train: images\nnames: [dirt, damage]\n")
    for index in range(40):
        put(root / f"images/blade{index // 2}_{index % 2}.png", encoded(picture(200 + index)))
        put(root / f"labels/blade{index // 2}_{index % 2}.txt", "0 .5 .5 .5 .5\n")
    with pytest.raises(UserError, match=r"no `val`: .*ingest\.split\.group"):
        ingest(root)
    metrics = ingest(root, split={"group": r"blade\d+|/[a-h]\.", "val": 0.2, "test": 0.2, "seed": 0})
    table = images_by_id(root)
    homes = {(name_of(row["path"]), row["split"]) for row in table.values()}
    assert len(homes) == len({name for name, _ in homes}) == 28 and len(table) == 48
    assert sum(metrics["groups"].values()) == 28
    with (root.parent / "out/tables/groups.csv").open() as file:
        groups = list(csv.DictReader(file))
    assert {split: sum(row["split"] == split for row in groups) for split in SPLITS} == metrics["groups"]
    assert sum(int(row["images"]) for row in groups) == 48
    assert read_layout(root, train_alone=True).splits["val"] is None
