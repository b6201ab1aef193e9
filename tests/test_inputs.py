"""Which images an input names, and names that no two of them share."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.common.errors import UserError
from stages.data.decoding import BadImage
from stages.formats.inputs import Source, find_images, named, read


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")


def files_and_names(inputs: list[str | Path], out: Path) -> dict[str, str]:
    return {source.file: source.name for source in find_images([str(one) for one in inputs], out)[0]}


def test_files_folders_and_globs_are_taken_once_each(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg", "in/deep/b.PNG", "in/notes.txt", "other/c.tif", "other/d.tif")
    monkeypatch.chdir(tmp_path)
    assert files_and_names(["in", "in/a.jpg", "other/*.tif", "./in/../in/a.jpg"], Path("out")) == {
        "in/a.jpg": "in/a",
        "in/deep/b.PNG": "in/deep/b",
        "other/c.tif": "other/c",
        "other/d.tif": "other/d",
    }


def test_names_start_below_what_all_inputs_share(tmp_path):
    touch(tmp_path, "in/deep/a.jpg")
    assert files_and_names([tmp_path / "in"], tmp_path / "out") == {"deep/a.jpg": "deep/a"}
    assert files_and_names([tmp_path / "in/deep/a.jpg"], tmp_path / "out") == {"a.jpg": "a"}


def test_images_of_one_stem_keep_their_suffixes_or_folders_apart(tmp_path):
    touch(tmp_path, "x/a.jpg", "x/a.png", "y/a.jpg", "x/b.jpg")
    found = files_and_names([tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    assert found == {"x/a.jpg": "x/a.jpg", "x/a.png": "x/a.png", "y/a.jpg": "y/a", "x/b.jpg": "x/b"}


@settings(deadline=None)
@given(st.sets(st.text("ab./", min_size=1, max_size=6).map(lambda stem: f"{stem}z.jpg"), min_size=1))
def test_no_two_images_share_a_name(files):
    files |= {file.removesuffix(".jpg") + ".png" for file in files if len(file) % 2}
    files |= {f"{file}.png" for file in files if len(file) % 3 == 0}
    names = [source.name for source in named({file: Path(file) for file in files})]
    assert len(set(names)) == len(files)


def test_outputs_among_the_inputs_are_not_predicted_again(tmp_path):
    touch(tmp_path, "a.jpg", "out/overlays/a.jpg")
    assert files_and_names([tmp_path], tmp_path / "out") == {"a.jpg": "a"}


@pytest.mark.parametrize("text", ["nothing.jpg", "*.nothing", "empty"])
def test_an_input_that_names_nothing_is_an_error(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.jpg", "empty/notes.txt")
    with pytest.raises(UserError, match="no image there"):
        find_images(["a.jpg", text], Path("out"))


def test_an_image_behind_a_link_is_read_and_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cache").mkdir()
    Image.new("RGB", (30, 20), (9, 99, 199)).save(tmp_path / "cache/f00", format="PNG", exif=exif)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").symlink_to(tmp_path / "cache/f00")
    (source,), _ = find_images([str(tmp_path / "in")], tmp_path / "out")
    _, image = read(source)
    assert (source.name, image.shape, image.dtype) == ("a", (30, 20, 3), np.uint8)


def test_bad_images_say_why(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(BadImage, match="not an image"):
        read(Source(tmp_path / "a.jpg", "a.jpg", "a"))
    with pytest.raises(BadImage, match="cannot be read"):
        read(Source(tmp_path / "gone.jpg", "gone.jpg", "gone"))
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="is not a regular file"):
        read(Source(tmp_path / "pipe.jpg", "pipe.jpg", "pipe"))
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(BadImage, match=r"loop\.jpg is a link in a loop of links"):
        read(Source(tmp_path / "loop.jpg", "loop.jpg", "loop"))
    with pytest.raises(BadImage, match="surrogates"):
        read(Source(tmp_path / "a.jpg", "\udcff.jpg", "\udcff"))
    with pytest.raises(BadImage, match=r"its name contains '\\x07', which XML cannot hold"):
        read(Source(tmp_path / "a.jpg", "bell\x07.jpg", "bell\x07"))
    with pytest.raises(BadImage, match="its name is longer than 235 bytes"):
        read(Source(tmp_path / "a.jpg", "in/" + "é" * 118 + ".jpg", "in/" + "é" * 118))


def test_outputs_are_never_inputs_even_through_links(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg", "in/sub/b.jpg", "in/out/masks/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "in/sub")
    for inputs, out in (("..", "../out"), (str(tmp_path / "link"), str(tmp_path / "in/out")), ("..", "../../link/out")):
        assert files_and_names([inputs], Path(out)) == {"a.jpg": "a", "sub/b.jpg": "sub/b"}
    with pytest.raises(UserError, match=r"is inside of --out \.\., which is never an input"):
        find_images(["b.jpg"], Path(".."))


def test_hidden_files_and_linked_folders_are_left_out_and_unread_images_named(tmp_path):
    touch(tmp_path, "in/a.jpg", "in/._a.jpg", "in/.trash/b.jpg", "elsewhere/c.jpg")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    assert files_and_names([tmp_path / "in"], tmp_path / "out") == {"a.jpg": "a"}
    touch(tmp_path, "in/b.HEIC", "in/deep/c.gif", "in/out/d.gif", "in/notes.txt")
    _, found = find_images([str(tmp_path / "in"), str(tmp_path / "in/[ab].*")], tmp_path / "in/out")
    assert {path: reason.split(":")[0] for path, reason in found.items()} == {
        f"{tmp_path}/in/b.HEIC": ".HEIC is not read",
        f"{tmp_path}/in/deep/c.gif": ".gif is not read",
        f"{tmp_path}/in/more": "a link to a folder, not followed",
    }


def test_a_file_that_is_named_itself_is_an_image_whatever_its_suffix_and_counts_once(tmp_path):
    touch(tmp_path, "in/a.jpg", "in/b.heic")
    for inputs in (["in", "in/b.heic"], ["in/b.heic", "in"]):
        sources, unread = find_images([str(tmp_path / one) for one in inputs], tmp_path / "out")
        assert ([source.file for source in sources], unread) == (["a.jpg", "b.heic"], {})


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg", "in/private/b.jpg")
    scandir = os.scandir

    def refusing(folder):
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=r"in/private: cannot be listed \(Permission denied\)"):
        find_images([str(tmp_path / "in")], tmp_path / "out")


def test_an_image_whose_files_would_be_called_as_a_folder_keeps_its_suffix():
    files = ("a.bmp", "a.jpg/b.jpg", "c.png", "c.json/d/e.png", "f.png", "f/g.png")
    names = {source.file: source.name for source in named({file: Path(file) for file in files})}
    assert names == {
        "a.bmp": "a.bmp",
        "a.jpg/b.jpg": "a.jpg/b",
        "c.png": "c.png",
        "c.json/d/e.png": "c.json/d/e",
        "f.png": "f",
        "f/g.png": "f/g",
    }
