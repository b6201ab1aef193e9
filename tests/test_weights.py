"""The weights stage: both networks in place from one section of parameters."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from stages import weights
from stages.checkpoints.timm_backbone import convert
from stages.common.errors import UserError
from stages.student.backbone import load_backbone
from stages.teacher.sam import build_sam, load_sam, save_sam
from tests.support.tiny_teacher import TINY

TINY_VIT = "vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """A tiny embedded teacher, and a backbone."""
    folder = tmp_path_factory.mktemp("embedded")
    save_sam(folder / "teacher", build_sam(TINY), TINY, torch.float16)
    torch.manual_seed(0)
    save_file(timm.create_model(TINY_VIT).state_dict(), folder / f"{TINY_VIT}.safetensors")
    convert(folder / f"{TINY_VIT}.safetensors", TINY_VIT, folder / "backbone")
    return folder


def run(embedded: Path, out: Path, teacher: str = "embedded", backbone: str | None = None) -> None:
    params = out / "params.yaml"
    params.write_text(f"weights:\n  teacher: {teacher}\n  backbone: {backbone or embedded / 'backbone'}\n")
    weights.main(embedded / "teacher", out / "teacher", out / "backbone", out / "cache", params)


def test_the_embedded_networks_are_put_in_place(embedded, tmp_path):
    run(embedded, tmp_path)
    assert load_sam(tmp_path / "teacher")[1] == TINY
    assert load_backbone(tmp_path / "backbone", 64)[1].taps == [1, 2, 4, 7]
    assert not (tmp_path / "cache").exists()
    for name in ("teacher/model.safetensors", "teacher/config.json", "backbone/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (embedded / name).read_bytes()


def test_a_local_backbone_goes_with_the_embedded_teacher(embedded, tmp_path):
    run(embedded, tmp_path, backbone=str(embedded / f"{TINY_VIT}.safetensors"))
    assert load_backbone(tmp_path / "backbone", 64)[1].name == TINY_VIT


def test_a_wrong_name_leaves_what_was_there(embedded, tmp_path):
    run(embedded, tmp_path)
    with pytest.raises(UserError, match=r"weights\.teacher = 'vit_hh'"):
        run(embedded, tmp_path, teacher="vit_hh")
    assert load_sam(tmp_path / "teacher")[1] == TINY
