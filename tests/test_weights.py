"""The weights stage: both networks in place from one section of parameters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from stages import weights
from stages.checkpoints.timm_backbone import convert
from stages.common.errors import UserError
from stages.student.backbone import load_backbone
from stages.teacher.loading import load_teacher
from stages.teacher.sam import build_sam, load_sam, save_sam
from tests.support.tiny_teacher import TINY

TINY_VIT = "vit_tiny_patch16_224.augreg_in21k"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """A tiny embedded teacher, and a backbone."""
    folder = tmp_path_factory.mktemp("embedded")
    save_sam(folder / "teacher", build_sam(TINY), TINY, torch.float16)
    torch.manual_seed(0)
    save_file(timm.create_model(TINY_VIT).state_dict(), folder / f"{TINY_VIT}.safetensors")
    convert(folder / f"{TINY_VIT}.safetensors", TINY_VIT, folder / "backbone")
    return folder


def run(embedded: Path, out: Path, teacher: str = "embedded", backbone: str | None = None, size_px: int = 64) -> None:
    params = out / "params.yaml"
    view = f"view: {{scale: native, size_px: {size_px}}}\n"
    params.write_text(f"weights:\n  teacher: {teacher}\n  backbone: {backbone or embedded / 'backbone'}\n{view}")
    weights.main(embedded / "teacher", out / "teacher", out / "backbone", out / "cache", params)


def test_the_embedded_networks_are_put_in_place(embedded, tmp_path):
    run(embedded, tmp_path)
    assert load_sam(tmp_path / "teacher")[1] == TINY
    assert load_backbone(tmp_path / "backbone", 64)[1].taps == [1, 2, 4, 7]
    assert not (tmp_path / "cache").exists()
    for name in ("teacher/model.safetensors", "teacher/config.json", "backbone/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (embedded / name).read_bytes()


def test_a_user_without_a_name_and_a_home_folder_gets_the_embedded_networks(embedded, tmp_path, monkeypatch):
    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    run(embedded, tmp_path)
    assert (tmp_path / "teacher/model.safetensors").is_file()
    code = "import getpass, os; getpass.getuser = lambda: {}['no entry']; import stages; print(os.environ['LOGNAME'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/bin"})
    assert (done.stdout, done.stderr) == (f"{os.getuid()}\n", "")


def test_no_flipped_byte_of_installed_weights_is_silent(embedded, tmp_path):
    run(embedded, tmp_path)
    for load, folder in ((load_teacher, tmp_path / "teacher"), (load_backbone, tmp_path / "backbone")):
        for path in sorted(folder.iterdir()):
            whole = path.read_bytes()
            for place in (9, len(whole) // 2, len(whole) - 3):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                with pytest.raises(UserError) as caught:
                    load(folder, torch.device("cpu") if load is load_teacher else 56)
                assert str(path) in str(caught.value) and "\n" not in str(caught.value)
            path.write_bytes(whole)


def test_a_local_backbone_goes_with_the_embedded_teacher(embedded, tmp_path):
    run(embedded, tmp_path, backbone=str(embedded / f"{TINY_VIT}.safetensors"))
    assert load_backbone(tmp_path / "backbone", 64)[1].name == TINY_VIT


def test_a_wrong_name_leaves_what_was_there(embedded, tmp_path):
    run(embedded, tmp_path)
    with pytest.raises(UserError, match=r"weights\.teacher = 'vit_hh'"):
        run(embedded, tmp_path, teacher="vit_hh")
    assert load_sam(tmp_path / "teacher")[1] == TINY


def test_a_size_that_the_backbone_does_not_take_is_refused_before_any_mask_is_made(embedded, tmp_path):
    refused = r"^view\.size_px = 72: the backbone vit_tiny_patch16_224\.augreg_in21k needs a multiple of 16$"
    with pytest.raises(UserError, match=refused):
        run(embedded, tmp_path, size_px=72)
