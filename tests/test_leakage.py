"""Images that look alike across splits are found and shown; splits by group leak nothing."""

import csv

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.data.images import probe_image
from stages.data.tables import SPLITS
from stages.ingestion.config import SplitParams
from stages.ingestion.duplicates import BLOCK, Seen, near_pairs, perceptual_hash
from stages.ingestion.groups import split_by_group
from stages.ingestion.layout import Layout, Photo, image_id, read_layout
from stages.ingestion.near import DRAWN, write_near_duplicates
from tests.support.bad_sets import encoded, picture, put, sound
from tests.test_bad_input import images, ingest


def surface(seed: int, size_wh: tuple[int, int] = (300, 200)) -> Image.Image:
    """Shading that all have in common, as one camera makes it, and a texture of its own."""
    across, down = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 20))
    levels = 150 - 60 * (across**2 + down**2) + np.random.default_rng(seed).normal(0, 12, across.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)


def look(data: bytes) -> bytes | None:
    return perceptual_hash(probe_image(data).thumbnail)


def distance(one: bytes, other: bytes) -> int:
    return int(np.unpackbits(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())


def seen(split: str, name: str, bits: bytes | None, sha256: str = "") -> Seen:
    return Seen(split, name, sha256 or name, 1, bits)


def bits(*on: int) -> bytes:
    """A hash with just these of its bits set."""
    flags = np.zeros(256, bool)
    flags[list(on)] = True
    return np.packbits(flags).tobytes()


def test_what_a_copy_goes_through_changes_few_bits_and_another_image_half():
    """With one shading on all of them: 8 x 8 coefficients would take them for one another."""
    photo = surface(0)
    original = look(encoded(photo))
    copies = [
        encoded(photo, "jpeg", quality=40),
        encoded(photo.resize((150, 100), Image.Resampling.BICUBIC)),
        encoded(photo.point(lambda level: min(255, int(level * 1.15)))),
        encoded(photo.convert("RGB"), "webp", quality=50),
    ]
    assert max(distance(original, look(copy)) for copy in copies) <= 40
    assert min(distance(original, look(encoded(surface(seed)))) for seed in range(1, 30)) > 60


def test_an_image_is_compared_as_it_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(surface(0).transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert distance(look(lying), look(encoded(surface(0)))) <= 8
    assert distance(look(lying), look(encoded(surface(0).transpose(Image.Transpose.ROTATE_90)))) > 60


def test_what_has_no_detail_has_no_hash():
    shading = Image.fromarray(np.tile(np.linspace(90, 140, 300), (200, 1)).astype(np.uint8))
    for plain in (Image.new("L", (30, 20)), shading, Image.new("RGB", (30, 20), (255, 0, 0))):
        assert look(encoded(plain)) is None


def test_pairs_are_the_nearest_of_each_earlier_split_up_to_the_limit_and_no_exact_copy():
    all_seen = [
        seen("train", "a", bits(1, 2, 3)),
        seen("train", "b", bits(1)),
        seen("train", "same", bits(9), sha256="S"),
        seen("val", "c", bits(1, 2)),
        seen("val", "far", bits(*range(100, 140))),
        seen("test", "d", bits(1, 5)),
        seen("test", "copy", bits(9), sha256="S"),
        seen("test", "plain", None),
    ]
    found = [(pair.distance, pair.photo.path, pair.twin.path) for pair in near_pairs(all_seen, SPLITS, 2)]
    assert found == [(1, "c", "a"), (1, "d", "b"), (2, "copy", "b"), (2, "d", "c")]
    assert not near_pairs(all_seen, SPLITS, 0)
    assert not near_pairs(all_seen[:3], SPLITS, 255)


def test_blocks_change_nothing():
    """As one image at a time would be compared."""
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(2 * BLOCK + 30)]
    others = [seen("train", f"t{index}", value) for index, value in enumerate(hashes[:40])]
    mine = [seen("val", f"v{index}", value) for index, value in enumerate(hashes[40:])]
    for pair in near_pairs(others + mine, SPLITS, 255):
        assert pair.distance == distance(pair.photo.look, pair.twin.look)
        assert pair.distance == min(distance(pair.photo.look, other.look) for other in others)


def test_pairs_are_listed_and_a_bounded_number_drawn(tmp_path):
    root, all_seen = tmp_path / "set", []
    for index in range(DRAWN + 3):
        for split, quality in (("train", 95), ("test", 50)):
            data = encoded(surface(index), "jpeg", quality=quality)
            put(root / f"{split}/{index}.jpg", data)
            probe = probe_image(data)
            all_seen.append(Seen(split, f"{split}/{index}.jpg", probe.sha256, 1, look(data)))
    pairs = near_pairs(all_seen, SPLITS, 40)
    for folder in ("one", "two"):
        write_near_duplicates(tmp_path / folder, root, pairs)
    with (tmp_path / "one/pairs.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert {(row["path"], row["other_path"]) for row in listed} == {
        (f"test/{index}.jpg", f"train/{index}.jpg") for index in range(DRAWN + 3)
    }
    assert [int(row["distance"]) for row in listed] == sorted(pair.distance for pair in pairs)
    drawn = Image.open(tmp_path / "one/pairs.png")
    assert drawn.width < 1300 and drawn.height < 330 * (DRAWN // 2) + 20
    assert (tmp_path / "one/pairs.png").read_bytes() == (tmp_path / "two/pairs.png").read_bytes()
    write_near_duplicates(tmp_path / "one", root, [])
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["pairs.csv"]


# Splits by group.


def layout(**splits: list[str] | None) -> Layout:
    """Images by path; splits not named are none of data.yaml's."""
    photos = {
        split: [Photo(split, image_id(split, path), path) for path in splits[split]] if splits.get(split) else None
        for split in SPLITS
    }
    return Layout(None, ("a",), photos, [])


def grouped(given: Layout, group: str = r"/([^/_]+)_", **changes: object) -> dict[str, list[str]]:
    made, groups = split_by_group(given, SplitParams(**{"group": group, "val": 0.2, "test": 0.2, "seed": 0, **changes}))
    assert sum(one.images for one in groups) == sum(len(photos or []) for photos in made.splits.values())
    for split, photos in made.splits.items():
        assert all(photo.split == split and photo.image_id.startswith(f"{split}/") for photo in photos or [])
    return {split: [photo.path for photo in photos or []] for split, photos in made.splits.items()}


def blades(count: int) -> list[str]:
    return [f"images/blade{index}_{shot}.jpg" for index in range(count) for shot in range(3)]


def name_of(path: str) -> str:
    return path.split("/")[-1].split("_")[0]


def test_a_group_goes_whole_into_one_split_and_shares_are_roughly_as_wished():
    splits = grouped(layout(train=blades(400)))
    names = {split: {name_of(path) for path in paths} for split, paths in splits.items()}
    assert sum(map(len, names.values())) == 400 and sum(map(len, splits.values())) == 1200
    assert 60 <= len(names["val"]) <= 100 and 60 <= len(names["test"]) <= 100


def test_a_data_set_that_grows_keeps_its_splits_and_a_seed_changes_them():
    before, after = grouped(layout(train=blades(50))), grouped(layout(train=blades(80)))
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)
    assert grouped(layout(train=blades(50)), seed=1) != before


def test_splits_that_are_there_stay_and_draw_their_groups_to_them():
    given = layout(train=blades(40), test=["images/blade7_0.jpg", "images/blade9_1.jpg"])
    splits = grouped(given)
    assert {name_of(path) for path in splits["test"]} == {"blade7", "blade9"}
    assert len(splits["test"]) == 6 and len(splits["val"]) > 0
    assert sum(map(len, splits.values())) == 120


def test_a_val_that_repeats_train_counts_as_none():
    assert grouped(layout(train=blades(50), val=blades(50))) == grouped(layout(train=blades(50)))


def test_no_test_share_makes_no_test():
    assert not grouped(layout(train=blades(50)), test=0.0)["test"]


@pytest.mark.parametrize(
    ("given", "group", "message"),
    [
        (layout(train=blades(50)), "turbine", r"= 'turbine': is not found in images/blade0_0.jpg; it must be found"),
        (layout(train=blades(50)), "(images)", "none of the 1 groups falls into .* another ingest.split.seed than 0"),
        (layout(train=blades(9), val=["a_1.jpg"], test=["b_1.jpg"]), "^(.)", "data.yaml already has val and test"),
    ],
)
def test_what_cannot_be_split_is_refused(given, group, message):
    with pytest.raises(UserError, match=message):
        grouped(given, group)


def test_one_folder_of_images_is_split_by_the_stage_itself(tmp_path):
    root = sound(tmp_path / "set")
    put(root / "data.yaml", "train: images\nnames: [dirt, damage]\n")
    for index in range(40):
        put(root / f"images/blade{index // 2}_{index % 2}.png", encoded(picture(200 + index)))
        put(root / f"labels/blade{index // 2}_{index % 2}.txt", "0 .5 .5 .5 .5\n")
    assert "no `val`: " in ingest(root) and "ingest.split.group" in ingest(root)
    metrics = ingest(root, split={"group": r"blade\d+|/[a-h]\.", "val": 0.2, "test": 0.2, "seed": 0})
    table = images(root)
    homes = {(name_of(row["path"]), row["split"]) for row in table.values()}
    assert len(homes) == len({name for name, _ in homes}) == 28 and len(table) == 48
    assert sum(metrics["groups"].values()) == 28
    with (root.parent / "out/tables/groups.csv").open() as file:
        groups = list(csv.DictReader(file))
    assert {split: sum(row["split"] == split for row in groups) for split in SPLITS} == metrics["groups"]
    assert sum(int(row["images"]) for row in groups) == 48
    assert read_layout(root, train_alone=True).splits["val"] is None
