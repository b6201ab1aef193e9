"""Outputs appear whole or not at all."""

import json

import pytest

from stages.shell.files import new_file, new_folder, sha256_file, write_json


def test_a_file_replaces_the_old_one_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "out.txt"
    with new_file(target) as part:
        part.write_text("first")
    with pytest.raises(RuntimeError), new_file(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_a_folder_replaces_the_old_one_only_when_complete(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as part:
        (part / "a").write_text("first")
    with pytest.raises(RuntimeError), new_folder(target) as part:
        (part / "b").write_text("half")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    with new_folder(target) as part:
        (part / "c").write_text("second")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with new_file(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_refuses_what_json_cannot_say(tmp_path):
    write_json(tmp_path / "a.json", {"x": 0.5, "none": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "none": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 0.5, "none": None}


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
