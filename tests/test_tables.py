"""The tables: what is written is read, the same rows give the same bytes, another layout is refused."""

from pathlib import Path

import numpy as np
import pytest

from stages.dataset.tables import (
    BOXES,
    IMAGES,
    Dataset,
    decode_label_map,
    encode_label_map,
    read_dataset,
    read_table,
    write_dataset,
    write_table,
)
from stages.shell.errors import UserError

ROW = {"box_id": "a:1", "image_id": "a", "class_id": 0, "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 2.0}
ROW |= {"source": "labels/a.txt", "line": 1}


def test_rows_come_back_and_bytes_repeat(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, BOXES, [ROW])
    assert read_table(tmp_path / "a", BOXES).to_pylist() == [ROW]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table(tmp_path / "a", IMAGES, [])
    assert read_table(tmp_path / "a", IMAGES).num_rows == 0


def test_another_layout_or_no_table_is_refused(tmp_path):
    write_table(tmp_path / "a", BOXES, [ROW])
    with pytest.raises(UserError, match="expected"):
        read_table(tmp_path / "a", IMAGES)
    with pytest.raises(UserError, match="run the ingest stage"):
        read_table(tmp_path / "gone", IMAGES)
    with pytest.raises(UserError, match="run the ingest stage"):
        read_dataset(tmp_path / "gone")


def test_the_data_set_s_description_comes_back(tmp_path):
    dataset = Dataset(Path("data/demo"), ("dirt", "damage"))
    write_dataset(tmp_path / "d.json", dataset)
    assert read_dataset(tmp_path / "d.json") == dataset


def test_label_maps_survive_and_repeat_byte_for_byte():
    labels = np.random.default_rng(0).integers(0, 256, (17, 31), dtype=np.uint8)
    np.testing.assert_array_equal(decode_label_map(encode_label_map(labels)), labels)
    assert encode_label_map(labels) == encode_label_map(labels.copy())
    with pytest.raises(ValueError, match="uint8"):
        encode_label_map(labels.astype(np.int64))
