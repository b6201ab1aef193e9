"""Rows of the train split's tables by number, whatever their chunks and however large they are together."""

import gc
import os
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.common.workdir import work_folder
from stages.losses.train_rows import CandidatesByImage, Rows, first_of_boxes, image_of, mapped_tables
from tests.support.mask_shards import read_candidates, read_masks, write_split
from tests.test_shards import candidate, mask


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=6), st.data())
def test_rows_are_those_of_the_table_in_any_chunks(lengths, data):
    numbers = iter(range(100))
    chunks = [
        pa.table({"a": [next(numbers) for _ in range(length)]}, pa.schema([("a", pa.int64())])) for length in lengths
    ]
    table = pa.concat_tables(chunks) if chunks else pa.table({"a": pa.array([], pa.int64())})
    rows, wanted = Rows(table, ["a"]), table.to_pylist()
    assert list(rows) == wanted
    assert len(rows) == len(wanted)
    start = data.draw(st.integers(0, len(wanted)))
    stop = data.draw(st.integers(start, len(wanted)))
    assert rows.between(start, stop) == wanted[start:stop]


def test_columns_of_more_than_2_gib_can_be_read():
    """Nine chunks on the same 256 MiB, of which the test touches a few pages."""
    pixels = pa.py_buffer(np.zeros(2**28, np.uint8))
    offsets = pa.py_buffer(np.array([0, 3, 2**28], np.int32))
    chunk = pa.Array.from_buffers(pa.binary(), 2, [None, offsets, pixels])
    table = pa.table({"png": pa.chunked_array([chunk] * 9)})
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        table["png"].combine_chunks()
    assert Rows(table, ["png"])[16] == {"png": bytes(3)}


def test_boxes_and_images_are_found_over_the_ends_of_chunks():
    masks = pa.table({"image_id": ["a", "b", "c"]})
    parts = [[("a", "a:1"), ("a", "a:1")], [("a", "a:1"), ("a", "a:2")], [("c", "c:1")]]
    candidates = pa.concat_tables(
        pa.table({"image_id": [image for image, _ in part], "box_id": [box for _, box in part]}) for part in parts
    )
    assert image_of(masks, candidates).tolist() == [0, 0, 0, 0, 2]
    assert first_of_boxes(candidates).tolist() == [True, False, False, True, True]
    assert first_of_boxes(candidates.slice(0, 0)).tolist() == []
    by_image = CandidatesByImage(masks, candidates, ["box_id"])
    assert [[row["box_id"] for row in by_image.of(image)] for image in range(3)] == [
        ["a:1", "a:1", "a:1", "a:2"],
        [],
        ["c:1"],
    ]
    for wrong in (candidates.take([4, 0]), pa.table({"image_id": ["x"], "box_id": ["x:1"]})):
        with pytest.raises(UserError, match="not in the order of its images; rasterize again"):
            image_of(masks, wrong)


def test_mapped_tables_are_the_shards_and_take_no_memory(tmp_path):
    write_split(
        tmp_path,
        ([mask("train/a"), mask("train/b")], [candidate("train/a")]),
        ([mask("train/c")], [candidate("train/c")]),
    )
    masks, candidates = mapped_tables(tmp_path)
    assert masks.equals(read_masks(tmp_path))
    assert candidates.equals(read_candidates(tmp_path))
    del masks, candidates
    gc.collect()  # tables of earlier tests, held by cycles, would be freed in between
    for path in (work_folder() / "training").iterdir():
        os.utime(path, (0, 0))
    before = pa.total_allocated_bytes()
    again = mapped_tables(tmp_path)
    assert pa.total_allocated_bytes() == before
    assert again[0].nbytes > 0
    ages = [time.time() - path.stat().st_mtime for path in (work_folder() / "training").iterdir()]
    assert len(ages) == 2 and max(ages) < 3600, "what is used is not taken for old"
