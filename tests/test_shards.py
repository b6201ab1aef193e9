"""Shards of pseudo-masks: order, bytes, and refusal of anything else."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.common.errors import UserError
from stages.masks.shards import CANDIDATES, MASKS, Shard, read_shard, shard_indices, stream_masks, write_index
from tests.support.mask_shards import read_candidates, read_masks, write_split


def mask(image_id: str) -> dict:
    return {
        "image_id": image_id,
        "path": f"images/{image_id}.png",
        "sha256": "0" * 64,
        "exif_orientation": 1,
        "height": 3,
        "width": 5,
        "label_status": "labelled",
        "n_boxes": 1,
        "label_map": {"bytes": b"png", "path": None},
    }


def candidate(image_id: str) -> dict:
    values = {pa.string(): "x", pa.bool_(): True, pa.binary(): b"rle"}
    row = {field.name: values.get(field.type, 0) for field in CANDIDATES}
    return row | {"image_id": image_id}


@pytest.fixture
def folder(tmp_path):
    write_split(tmp_path, ([mask("train/a"), mask("train/b")], [candidate("train/a")]), ([mask("train/c")], []))
    return tmp_path


def test_shards_are_read_in_order(folder):
    assert shard_indices(folder) == [0, 1]
    assert read_masks(folder)["image_id"].to_pylist() == ["train/a", "train/b", "train/c"]
    assert read_candidates(folder)["image_id"].to_pylist() == ["train/a"]
    assert [row["image_id"] for row in stream_masks(folder)] == ["train/a", "train/b", "train/c"]
    masks, candidates = read_shard(folder, 1)
    assert (len(masks), len(candidates)) == (1, 0)


def test_an_empty_split_keeps_its_columns(tmp_path):
    write_split(tmp_path, ([], []))
    assert read_masks(tmp_path).schema.equals(MASKS)
    assert read_candidates(tmp_path).schema.equals(CANDIDATES)
    assert len(read_masks(tmp_path)) == len(read_candidates(tmp_path)) == 0


def test_the_same_rows_give_the_same_bytes(folder, tmp_path):
    write_split(tmp_path / "again", ([mask("train/a"), mask("train/b")], [candidate("train/a")]))
    for name in ("label_maps/00000.parquet", "candidates/00000.parquet"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_label_map_is_declared_an_image(folder):
    info = json.loads(pq.read_schema(folder / "label_maps/00000.parquet").metadata[b"huggingface"])
    assert info["info"]["features"]["label_map"] == {"_type": "Image"}


def test_a_folder_holds_files_of_one_schema(folder):
    """So that readers of Parquet data sets, such as Hugging Face `datasets`, take it as one."""
    for name, schema in (("label_maps", MASKS), ("candidates", CANDIDATES)):
        files = sorted((folder / name).iterdir())
        assert [path.name for path in files] == ["00000.parquet", "00001.parquet"]
        assert all(pq.read_schema(path).equals(schema) for path in files)


def test_a_folder_without_its_index_is_refused_even_if_it_holds_shards(folder):
    (folder / "shards.json").unlink()
    with pytest.raises(UserError, match=r"shards.json: no pseudo-masks here .*run the rasterize stage"):
        read_masks(folder)


def test_a_file_that_the_index_does_not_list_is_not_read(folder):
    shutil.copy(folder / "label_maps/00001.parquet", folder / "label_maps/00002.parquet")
    assert shard_indices(folder) == [0, 1]
    (folder / "shards.json").write_text('[{"index": 1}]')
    with pytest.raises(UserError, match=r"lists shards \[1\], expected 0, 1"):
        shard_indices(folder)
    (folder / "shards.json").write_text("[]")
    with pytest.raises(UserError, match=r"lists shards \[\], expected 0, 1"):
        shard_indices(folder)


def test_shards_are_listed_in_their_order_whichever_was_done_first(tmp_path):
    write_index(tmp_path, [Shard(index, 5, {"label_maps": "a" * 64}) for index in (2, 0, 1)])
    assert shard_indices(tmp_path) == [0, 1, 2]


def test_a_file_of_another_layout_is_refused(folder):
    pq.write_table(pa.table({"image_id": ["train/a"]}), folder / "label_maps/00000.parquet")
    with pytest.raises(UserError, match=r"label_maps/00000.parquet: columns are \['image_id'\]"):
        read_masks(folder)
    (folder / "label_maps/00000.parquet").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"label_maps/00000.parquet: not readable"):
        read_masks(folder)
