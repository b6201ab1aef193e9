"""Bad data sets: their content is read, rejected and listed, or refused in one line; the data set is not modified."""

import csv
import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.data.tables import REJECTS, read_table
from stages.ingestion.root_states import states_of
from tests.support.bad_sets import BASE_IDS, DATA_YAML, KINDS, SIZE_WH, encoded, picture, put, sound
from tests.support.ingesting import images_by_id, ingest_or_error


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """No progress bars in some hundred runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        yield


def fingerprint(root: Path) -> dict[str, tuple]:
    """Mode, size, time of change, content and link target of all files and folders in the data set."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            small = stat.S_ISREG(status.st_mode) and status.st_size < 1 << 24
            content = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
            target = str(path.readlink()) if path.is_symlink() else ""
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, content, target)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_bad_input_gives_its_findings_or_its_error(tmp_path, name):
    kind, root = KINDS[name], sound(tmp_path / "set")
    kind.build(root)
    before = fingerprint(root)
    states_of(root, {})  # as the stage before ingest does, in a `dvc repro`
    said = ingest_or_error(root, **kind.settings)
    if kind.refused:
        assert isinstance(said, str) and kind.refused in said, said
        assert len(said) < 2000
    else:
        assert isinstance(said, dict), said
        kept = images_by_id(root)
        assert kept.keys() >= BASE_IDS - kind.gone
        assert {key: (kept[key]["height"], kept[key]["width"]) for key in kind.sizes_hw} == kind.sizes_hw
        for key, value in kind.counts.items():
            found = said
            for part in key.split("."):
                found = found[part]
            assert found == value, key
    if kind.findings or not kind.refused:
        rows = read_table(root.parent / "out/tables/rejects.parquet", REJECTS).to_pylist()
        assert [(row["file"], row["line"], row["action"]) for row in rows] == [
            (file, line, action) for file, line, _, action in kind.findings
        ]
        for row, (_, _, reason, _) in zip(rows, kind.findings, strict=True):
            assert reason in row["reason"]
            assert len(row["reason"]) < 300
        with (root.parent / "out/tables/rejects.csv").open(newline="", encoding="utf-8") as file:
            assert [row["reason"] for row in csv.DictReader(file)] == [row["reason"] for row in rows]
    said_strictly = ingest_or_error(root, strict=True, **kind.settings)
    clean = not kind.refused and not kind.findings and not kind.counts.get("near_duplicates")
    assert isinstance(said_strictly, dict) == clean, said_strictly
    assert clean or kind.refused or "--strict: " in said_strictly
    assert fingerprint(root) == before


def test_there_are_at_least_forty_kinds():
    assert len(KINDS) >= 40


def test_all_kinds_at_once_reject_no_good_image(tmp_path):
    """One data set with all kinds that do not exclude each other."""
    root = sound(tmp_path / "set")
    for index, kind in enumerate(KINDS.values()):
        alone = sound(tmp_path / f"{index}/set")
        kind.build(alone)
        for path in (alone / "images/train").iterdir():
            if path.is_file() and path.stem == "x" and not path.is_symlink() and path.stat().st_size < 1 << 24:
                put(root / f"images/train/{index}{path.suffix}", path.read_bytes())
        if (alone / "labels/train/a.txt").is_file():
            put(root / f"images/train/r{index}.png", encoded(picture(100 + index)))
            if (alone / "labels/train/a.txt").stat().st_size < 1 << 24:
                put(root / f"labels/train/r{index}.txt", (alone / "labels/train/a.txt").read_bytes())
    said = ingest_or_error(root, max_bad_share=0.5, duplicates="report")
    assert isinstance(said, dict), said
    assert images_by_id(root).keys() >= BASE_IDS
    assert said["train"]["rejected_images"] > 10 and said["train"]["rejected_rows"] > 20


# All examples share one folder: each overwrites the files of the one before.
any_input = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
WHOLE = {suffix: encoded(picture(7), suffix) for suffix in ("png", "jpeg", "tiff", "webp", "bmp")}
MASK = encoded(Image.new("L", SIZE_WH))


@st.composite
def damaged(draw: st.DrawFn, wholes: tuple[bytes, ...]) -> bytes:
    """A valid file with some bytes changed and perhaps without its end; or random bytes."""
    data = bytearray(draw(st.sampled_from(wholes)))
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=8)):
        data[place] = draw(st.integers(0, 255))
    return draw(st.one_of(st.just(bytes(data)), st.just(bytes(data[: len(data) * 2 // 3])), st.binary(max_size=200)))


numbers = st.one_of(
    st.floats(-0.2, 1.2).map(str), st.floats().map(str), st.integers(-2, 3).map(str), st.text(max_size=3)
)
lines = st.lists(st.lists(numbers, max_size=7).map(" ".join), max_size=5).map("\n".join).map(str.encode)


def ingested_with(root: Path, file: str, data: bytes) -> dict | str:
    """What ingest says of a sound data set with `data` as one of its files.

    Either the stage succeeds with all other images, or its error is one line about the file.
    """
    if not root.exists():
        sound(root)
    put(root / file, data)
    said = ingest_or_error(root, max_bad_share=0.5)
    if isinstance(said, str):
        assert len(said.splitlines()) == 1 and Path(file).name in said, said
    else:
        assert images_by_id(root).keys() | {"train/x", "test/h"} >= BASE_IDS
    return said


@any_input
@given(damaged(tuple(WHOLE.values())))
def test_any_bytes_as_an_image(tmp_path, data):
    said = ingested_with(tmp_path / "set", "images/train/x.png", data)
    if isinstance(said, dict):
        assert said["train"]["images"] + said["train"]["rejected_images"] == 5


@any_input
@given(st.one_of(st.binary(max_size=200), lines))
def test_any_bytes_and_any_rows_as_labels(tmp_path, data):
    said = ingested_with(tmp_path / "set", "labels/train/a.txt", data)
    if isinstance(said, dict):
        rows = sum(
            bool(row.decode(errors="replace").strip()) for row in data.removeprefix(b"\xef\xbb\xbf").splitlines()
        )
        train = said["train"]
        assert train["boxes"] + train["rejected_rows"] + train["duplicates_removed"] == rows + 1


@any_input
@given(damaged((MASK,)))
def test_any_bytes_as_a_mask(tmp_path, data):
    root = tmp_path / "set" if (tmp_path / "set").exists() else sound(tmp_path / "set")
    put(root / "masks/test/h.png", data)
    said = ingest_or_error(root, max_bad_share=0.5)
    assert isinstance(said, dict), said
    assert said["test"]["truth"] + said["test"]["rejected_masks"] == 2


@any_input
@given(st.one_of(damaged((DATA_YAML.encode(),)), st.text(max_size=99).map(str.encode)))
def test_any_bytes_as_data_yaml(tmp_path, data):
    root = tmp_path / "set" if (tmp_path / "set").exists() else sound(tmp_path / "set")
    put(root / "data.yaml", data)
    said = ingest_or_error(root)
    assert isinstance(said, dict) or ("\n" not in said and said), said


@any_input
@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=5))
def test_any_bytes_as_a_list_of_images(tmp_path, listed):
    root = tmp_path / "set" if (tmp_path / "set").exists() else sound(tmp_path / "set")
    put(root / "data.yaml", DATA_YAML.replace("train: images/train", "train: train.txt"))
    put(root / "train.txt", b"\n".join([b"images/train/a.png", *(line + b".png" for line in listed)]))
    said = ingest_or_error(root, max_bad_share=0.9)
    assert isinstance(said, dict), said
    assert said["train"]["images"] >= 1


ROWS = {
    "0 .5 .5 .3 .3": 1,
    "1 .1 .2 .5 .1 .6 .7": 1,
    "0 .5 .5 .3 .3 .9": 0,
    "0 .5 .5 7 7": 0,
    "9 .5 .5 .1 .1": 0,
    "x": 0,
}
"""A row to the number of boxes that it gives."""


@any_input
@given(st.lists(st.tuples(st.sampled_from(sorted(ROWS)), st.sampled_from(["a", "b", "gone"])), max_size=8))
def test_no_mix_of_rows_and_losses_beyond_the_budget_passes(tmp_path, rows):
    """Rows of two images and of a label file without an image; each label row is lost or a box."""
    root = tmp_path / "set" if (tmp_path / "set").exists() else sound(tmp_path / "set")
    rows = list(dict.fromkeys(rows))
    for stem in ("a", "b", "gone"):
        text = "".join(f"{row}\n" for row, place in rows if place == stem)
        put(root / f"labels/train/{stem}.txt", text)
    boxes = sum(ROWS[row] for row, place in rows if place != "gone") + 2
    lost = sum(not ROWS[row] for row, place in rows if place != "gone")
    lost += sum(place == "gone" and row != "x" for row, place in rows)
    said = ingest_or_error(root, max_bad_share=0.25)
    if lost > 0.25 * (lost + boxes):
        assert isinstance(said, str) and f"{lost} of {lost + boxes} label rows are lost" in said, said
    elif isinstance(said, dict):
        assert sum(said[split]["boxes"] for split in ("train", "val", "test")) == boxes
