"""Tables are read as they were written, and refuse other schemas."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.common.errors import UserError
from stages.data.tables import (
    IMAGES,
    REJECTS,
    TRUTH,
    Dataset,
    append,
    decode_label_map,
    encode_label_map,
    open_table,
    read_dataset,
    read_table,
    stream_tables,
    write_dataset,
    write_table,
)

ROWS = [{"image_id": f"val/{index}", "height": 3, "width": 5, "mask_png": bytes([index])} for index in range(4)]


def test_rows_come_back_in_the_order_given(tmp_path):
    write_table(tmp_path / "a.parquet", TRUTH, ROWS)
    assert read_table(tmp_path / "a.parquet", TRUTH).to_pylist() == ROWS


def test_a_table_is_appended_to(tmp_path):
    with open_table(tmp_path / "a.parquet", TRUTH) as writer:
        append(writer, ROWS[:3])
        append(writer, [])
        append(writer, ROWS[3:])
        assert not (tmp_path / "a.parquet").exists()
    assert read_table(tmp_path / "a.parquet", TRUTH).to_pylist() == ROWS


def test_a_stream_of_tables_never_holds_the_whole_file(tmp_path):
    """64 groups of 64 KiB that do not compress; Arrow may hold the few that it reads."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 1 << 16), np.uint8)
    with open_table(tmp_path / "a.parquet", TRUTH) as writer:
        for index, png in enumerate(noise):
            append(writer, [{"image_id": f"val/{index:02d}", "height": 3, "width": 5, "mask_png": png.tobytes()}])
    before = pa.total_allocated_bytes()
    stream = stream_tables(tmp_path / "a.parquet", TRUTH, "ingest", 1)
    assert max(pa.total_allocated_bytes() - before for _ in stream) < noise.nbytes / 4


def test_no_rows_are_a_table_too(tmp_path):
    write_table(tmp_path / "a.parquet", IMAGES, [])
    with open_table(tmp_path / "b.parquet", IMAGES):
        pass
    for name in "ab":
        assert read_table(tmp_path / f"{name}.parquet", IMAGES).num_rows == 0


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_table(tmp_path / name, TRUTH, ROWS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_only_a_rejects_line_may_be_unknown(tmp_path):
    row = {"file": "a", "line": None, "reason": "b", "action": "c"}
    write_table(tmp_path / "a", REJECTS, [row])
    assert read_table(tmp_path / "a", REJECTS).to_pylist() == [row]
    with pytest.raises(pa.ArrowInvalid):
        write_table(tmp_path / "b", TRUTH, [{**ROWS[0], "image_id": None}])
    assert not (tmp_path / "b").exists()


def test_a_missing_broken_or_other_table_is_refused_by_name(tmp_path):
    (tmp_path / "text").write_text("no table")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other")
    for name, message in (("absent", "not readable"), ("text", "not readable"), ("other", r"columns are \['x'\]")):
        with pytest.raises(UserError, match=message) as caught:
            read_table(tmp_path / name, TRUTH)
        assert str(tmp_path / name) in str(caught.value)


def test_no_flipped_byte_of_a_table_is_silent(tmp_path):
    path, draw = tmp_path / "a", random.Random(0)
    write_table(
        path, TRUTH, [{**ROWS[0], "image_id": f"train/{i}", "mask_png": bytes(range(i, i + 50))} for i in range(30)]
    )
    whole, wanted = path.read_bytes(), read_table(path, TRUTH)
    for _ in range(400):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_table(path, TRUTH) == wanted, "statistics, which nobody reads"
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_the_data_set_is_written_as_given(tmp_path):
    dataset = Dataset(Path("../my set"), ("dirt", "écaille"))
    write_dataset(tmp_path / "dataset.json", dataset)
    assert read_dataset(tmp_path / "dataset.json") == dataset
    assert json.loads((tmp_path / "dataset.json").read_text())["root"] == "../my set"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"root": "a"}', "\udcff"])
def test_a_broken_data_set_file_is_refused(tmp_path, text):
    path = tmp_path / "dataset.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="run the ingest stage"):
        read_dataset(path)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_label_maps_survive_as_png(labels):
    np.testing.assert_array_equal(decode_label_map(encode_label_map(labels)), labels)
    assert encode_label_map(labels) == encode_label_map(labels.copy())


def test_only_label_maps_are_encoded():
    for wrong in (np.zeros((3, 4)), np.zeros((3, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="label map"):
            encode_label_map(wrong)
