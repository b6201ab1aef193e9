"""Work in shards: what is finished stays finished, what fails fails alone, and the tables are read as a stream."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.common.files import sha256_file, write_json
from stages.common.progress import progress
from stages.data.tables import BOXES, IMAGES, write_table
from stages.engine.engines import Engine, run_jobs
from stages.engine.shard_jobs import DONE, Done, Job, all_there, forget, key_of, stop_at_failures, wanted
from stages.teacher.rasterizing import jobs_of
from tests.support.shard_work import Upper, jobs


@pytest.fixture
def work(tmp_path) -> Upper:
    return Upper(tmp_path / "staging", tmp_path / "log")


def run(work: Upper, todo: list[Job]) -> list[Done]:
    with progress((), "test", "images") as bar:
        return run_jobs(work, todo, Engine(), bar)


def test_a_finished_shard_is_not_done_again_and_the_work_not_even_opened(work):
    first = run(work, jobs(["a", "b"], ["c"]))
    assert work.attempts() == {"0": 1, "1": 1, "opened": 1}
    assert run(work, jobs(["a", "b"], ["c"])) == first
    assert work.attempts() == {"0": 1, "1": 1, "opened": 1}
    run(work, jobs(["a", "b"], ["d"]))
    assert work.attempts() == {"0": 1, "1": 2, "opened": 2}, "another row, another shard"
    assert [(done.rows, list(done.files)) for done in first] == [(2, ["upper.parquet"]), (1, ["upper.parquet"])]
    forget(first)
    assert not any(done.folder.exists() for done in first)


@pytest.mark.parametrize("spoil", ["truncate", "remove", "list", "no files"])
def test_a_damaged_shard_is_reported_and_done_again(work, capsys, spoil):
    (done,) = run(work, jobs(["a"]))
    path, before = done.folder / "upper.parquet", (done.folder / "upper.parquet").read_bytes()
    if spoil == "truncate":
        path.write_bytes(before[:-1])
    elif spoil == "remove":
        path.unlink()
    else:
        (done.folder / DONE).write_text("[" if spoil == "list" else "{}")
    assert run(work, jobs(["a"])) == [done]
    assert path.read_bytes() == before
    assert "damaged, computed again" in capsys.readouterr().err


def test_a_failed_image_is_listed_and_costs_its_shard_alone(work, capsys):
    found = run(work, jobs(["a"], ["bad1", "b", "bad2"], ["c"]))
    failures = [failure for done in found for failure in done.failures]
    with pytest.raises(UserError, match=r"2 of 5 images failed, first bad1: is bad; .* a rerun costs no more than"):
        stop_at_failures(failures, 5)
    assert capsys.readouterr().err.count("failed: bad") == 2
    run(work, jobs(["a"], ["b"], ["c"]))
    assert work.attempts() == {"0": 1, "1": 2, "2": 1, "opened": 2}
    stop_at_failures([], 5)


def test_a_shard_that_another_run_removed_is_said_and_done_again(work):
    kept, lost = run(work, jobs(["a"], ["b"]))
    forget([lost])
    # by a run that worked on it: one of its files was removed before it listed them
    write_json(lost.folder / "other", {})
    write_json(lost.folder / DONE, {"other": sha256_file(lost.folder / "other")})
    with pytest.raises(UserError, match=r"another run, .* has removed .*: run it again"), all_there([kept, lost]):
        (lost.folder / "upper.parquet").read_bytes()
    assert run(work, jobs(["a"], ["b"])) == [kept, lost]
    assert work.attempts() == {"0": 1, "1": 2, "opened": 2}
    with pytest.raises(FileNotFoundError), all_there([kept, lost]):
        (work.log / "missing").read_bytes()


@pytest.mark.parametrize(("text", "numbers"), [(None, (0, 9)), ("0-3", (0, 4)), ("8", (8, 9)), ("7-12", (7, 9))])
def test_shards_are_asked_for_by_number(text, numbers):
    assert wanted(text, 9) == range(*numbers)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1-2-3", "9", "9-12", "1.5"])
def test_what_is_no_range_of_shards_is_refused(text):
    with pytest.raises(UserError, match=f"--shards {text}: (allowed are A-B or A|there are 9 shards, 0 to 8)"):
        wanted(text, 9)


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=12), size=st.integers(1, 5), group=st.integers(1, 7))
def test_each_shard_gets_its_images_and_all_of_their_boxes(tmp_path_factory, counts, size, group):
    """`counts`: boxes of each image. Whatever lies in which row group, no box is lost."""
    tables = tmp_path_factory.mktemp("tables")
    (tables / "val").mkdir()
    images = [row(IMAGES, image_id=f"val/{number:02d}") for number in range(len(counts))]
    boxes = [row(BOXES, image_id=f"val/{n:02d}", line=line) for n, count in enumerate(counts) for line in range(count)]
    write_table(tables / "val/images.parquet", IMAGES, images)
    pq.write_table(pa.Table.from_pylist(boxes, BOXES), tables / "val/boxes.parquet", row_group_size=group)
    found = list(jobs_of(tables, None, "val", size))
    assert [job.index for job in found] == list(range(-(-len(counts) // size)))
    assert [row for job in found for row in job.images.to_pylist()] == [one | {"drawn": None} for one in images]
    assert [row for job in found for row in job.boxes.to_pylist()] == boxes
    for job in found:
        assert set(job.boxes["image_id"].to_pylist()) <= set(job.images["image_id"].to_pylist())
    assert len({key_of("x", job.images, job.boxes) for job in found}) == len(found)


def test_an_empty_split_is_one_job_and_foreign_boxes_are_refused(tmp_path):
    write_table(tmp_path / "test/images.parquet", IMAGES, [])
    write_table(tmp_path / "test/boxes.parquet", BOXES, [])
    (job,) = jobs_of(tmp_path, None, "test", 4)
    assert (job.index, len(job.images), len(job.boxes)) == (0, 0, 0)
    write_table(tmp_path / "test/boxes.parquet", BOXES, [row(BOXES, image_id="test/a")])
    with pytest.raises(UserError, match=r"boxes.parquet: box of test/a, which images.parquet lacks"):
        list(jobs_of(tmp_path, None, "test", 4))


def row(schema: pa.Schema, **values) -> dict:
    plain = {pa.string(): "", pa.binary(): None}
    return {field.name: plain.get(field.type, 0) for field in schema} | values


def test_the_key_of_a_shard_depends_on_every_value_and_on_bytes_too():
    table = pa.table({"a": [1.5, 2.5], "png": [b"x", None]})
    keys = [key_of("work", table), key_of("other", table), key_of("work", table, table), key_of("work", table[:1])]
    keys.append(key_of("work", pa.table({"a": [1.5, 2.5], "png": [b"y", None]})))
    assert len(set(keys)) == 5
    assert key_of("work", pa.concat_tables([table[:1], table[1:]])) == keys[0]
