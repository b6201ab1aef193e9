"""A data set by its manifest, and on object storage: the tables of the same files on disk."""

import json
import os
from pathlib import Path

import fsspec
import pytest

from stages import fingerprint, ingest, manifest
from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.remote import Listing, RemotePath, data_root, list_objects
from stages.data.tables import BOXES, IMAGES, read_dataset, read_table
from stages.engine.engines import Engine
from stages.ingestion.manifest_file import read_sizes
from tests.support.tiny_project import write_data_set, write_params

COUNTS = {"train": 4, "val": 2, "test": 2}


@pytest.fixture
def root(tmp_path) -> Path:
    write_data_set(tmp_path / "set", COUNTS)
    (tmp_path / "set/labels/train/p00001.txt").write_text("")
    (tmp_path / "set/labels/train/p00002.txt").unlink()
    (tmp_path / "set/images/train/.hidden.png").write_bytes(b"x")
    return tmp_path / "set"


@pytest.fixture
def remote(root):
    """The same data set in the memory of this process, by a URL."""
    storage = fsspec.filesystem("memory")
    storage.put(f"{root}/", "/bucket/set/", recursive=True)
    yield "memory://bucket/set"
    storage.rm("/bucket", recursive=True)
    RemotePath.listed = None


def params_of(folder: Path, data_set: str, listed: Path | None = None) -> Path:
    path = folder / "params.yaml"
    write_params(path, Path("x"))
    path.write_text(path.read_text().replace("root: x", f"root: {data_set}"))
    if listed:
        path.write_text(path.read_text().replace("manifest:", f"manifest: {listed}  #"))
    return path


def ingested(folder: Path, params: Path) -> dict[str, bytes]:
    """The files that ingest makes, without the one that says where the root is."""
    ingest.main(folder / "tables", folder / "truth", folder / "ingest.json", params)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name not in ("tables/dataset.json", params.name)}


def listed(root: str, out: Path) -> Path:
    manifest.main(root, out)
    return out


def test_a_manifest_lists_each_file_with_what_changes_with_its_content(root, tmp_path):
    sizes = read_sizes(listed(str(root), tmp_path / "m.parquet"))
    assert sizes == {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and path.name != ".hidden.png"
    }
    assert list(sizes) == sorted(sizes)
    before = (tmp_path / "m.parquet").read_bytes()
    os.utime(root / "data.yaml", (1, 1))
    assert listed(str(root), tmp_path / "m.parquet").read_bytes() == before
    image = root / "images/val/p00000.png"
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    assert listed(str(root / "data.yaml"), tmp_path / "m.parquet").read_bytes() != before


def test_with_a_manifest_changes_are_noticed_when_it_is_refreshed(root, tmp_path):
    out = tmp_path / "m.parquet"
    params = params_of(tmp_path, str(root), listed(str(root), out))

    def taken() -> dict:
        fingerprint.main(tmp_path / "f.json", tmp_path / "t.json", params)
        return json.loads((tmp_path / "f.json").read_text())

    first = taken()
    for path in (root / "images/train/p00003.png", root / "labels/train/p00003.txt"):
        path.rename(path.with_stem("q"))
    assert taken() == first
    with pytest.raises(UserError) as wrong:
        ingested(tmp_path / "out", params)
    assert str(wrong.value) == (
        f"{out}: 2 listed and not there, such as images/train/p00003.png; 2 not listed, such as images/train/q.png; "
        f"refresh it: python -m stages.manifest {root} --out {out}"
    )
    listed(str(root), out)
    assert taken() != first
    assert ingested(tmp_path / "out", params)


def test_a_file_name_that_is_not_utf_8_is_one_line_and_leaves_no_manifest(root, tmp_path):
    (root / os.fsdecode(b"sch\xe4den.jpg")).touch()
    with pytest.raises(UserError, match=r"den\.jpg: file name is not valid UTF-8"):
        listed(str(root), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize("other", ["data.yaml", "labels/train/p00000.txt"])
def test_a_file_that_is_no_manifest_is_not_replaced_by_one(root, other):
    before = (root / other).read_bytes()
    with pytest.raises(UserError, match="exists, and is no manifest"):
        listed(str(root), root / other)
    assert (root / other).read_bytes() == before


def test_a_manifest_inside_of_the_root_does_not_list_itself(root, tmp_path):
    out = listed(str(root), root / "manifest.parquet")
    first = out.read_bytes()
    assert listed(str(root), out).read_bytes() == first
    assert ingested(tmp_path / "out", params_of(tmp_path, str(root), out))


def test_object_storage_gives_the_tables_of_the_same_files_on_disk(root, remote, tmp_path):
    wanted = ingested(tmp_path / "local", params_of(tmp_path, str(root)))
    assert ingested(tmp_path / "remote", params_of(tmp_path, remote)) == wanted
    with_manifest = params_of(tmp_path, f"{remote}/data.yaml", listed(remote, tmp_path / "m.parquet"))
    assert ingested(tmp_path / "listed", with_manifest) == wanted
    images = read_table(tmp_path / "remote/tables/train/images.parquet", IMAGES).to_pylist()
    assert [row["label_status"] for row in images] == ["labelled", "empty", "missing", "labelled"]
    assert len(read_table(tmp_path / "remote/tables/train/boxes.parquet", BOXES)) == 6
    here, there = (read_dataset(tmp_path / place / "tables/dataset.json") for place in ("local", "remote"))
    assert str(there.root) == remote
    RemotePath.listed = None  # a later stage lists nothing
    assert (read_image(here, images[0]) == read_image(there, images[0])).all()
    with pytest.raises(UserError, match=r"memory://bucket/set/gone\.png: not found; run `dvc repro` again"):
        read_image(there, {**images[0], "path": "gone.png"})
    with pytest.raises(UserError, match="leads out of the data root"):
        read_image(there, {**images[0], "path": "../other/p.png"})


def test_a_fingerprint_of_objects_follows_their_content(remote, tmp_path):
    params = params_of(tmp_path, remote)
    fingerprint.main(tmp_path / "one.json", tmp_path / "t.json", params)
    fsspec.filesystem("memory").pipe("/bucket/set/data.yaml", b"other")
    fingerprint.main(tmp_path / "two.json", tmp_path / "t.json", params)
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["files"] == two["files"] and one["sha256"] != two["sha256"]


def test_a_storage_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^nos://bucket/set: fsspec reads no such URL \(Protocol not known: nos\)$"):
        list_objects(data_root("nos://bucket/set"))
    with pytest.raises(UserError, match="memory://bucket/none: "):
        list_objects(data_root("memory://bucket/none"))


@pytest.mark.parametrize("url", ["file:///set", "s3://", "s3:///set", "zip://set::file:///set.zip"])
def test_a_url_without_host_or_bucket_is_refused(url):
    with pytest.raises(UserError, match=f"^{url}: a URL needs a host or a bucket"):
        data_root(url)
    with pytest.raises(UserError, match="allowed are URLs"):
        Engine(url=url.removeprefix("zip://set::")).store()


def test_paths_of_objects_are_those_of_a_disk():
    root = RemotePath("s3://bucket/my set")
    assert str(root / "images/a.png") == (root / "images/a.png").as_posix() == "s3://bucket/my set/images/a.png"
    assert (root / "images/../x").resolve() == root / "x"
    assert not (root / "../other").resolve().is_relative_to(root.resolve())
    RemotePath.listed = Listing(root, {"images/a.png": 3, "images/.b/c.png": 4, "data.yaml": 5})
    try:
        assert sorted(path.name for path in root.iterdir()) == ["data.yaml", "images"]
        assert [str(path.relative_to(root)) for path in root.walk()] == ["data.yaml", "images/a.png"]
        assert (root / "images").is_dir() and not (root / "images").is_file() and not (root / "labels").exists()
        assert (root / "images/a.png").size() == 3
        with pytest.raises(FileNotFoundError):
            (root / "images/b.png").size()
    finally:
        RemotePath.listed = None
