"""The authors' files of SAM 2.1: a tiny Sam2Model under their names, converted back to the same outputs."""

import re
from pathlib import Path

import pytest
import torch

from stages.checkpoints import sam2_file, sam_teacher
from stages.checkpoints.hub_teacher import ORIGINAL_SHA256
from stages.checkpoints.sam2_file import CONFIGS
from stages.checkpoints.sam_teacher import install_teacher
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.teacher.loading import load_teacher

pytest.importorskip("transformers")
import transformers

from tests.test_transformers_sam import sam2_config

TO_OFFICIAL = {
    "vision_encoder.backbone.": "image_encoder.trunk.",
    "vision_encoder.": "image_encoder.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
    "no_memory_embedding": "no_mem_embed",
    "shared_embedding.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    "mask_embed.conv1": "mask_downscaling.0",
    "mask_embed.layer_norm1": "mask_downscaling.1",
    "mask_embed.conv2": "mask_downscaling.3",
    "mask_embed.layer_norm2": "mask_downscaling.4",
    "mask_embed.conv3": "mask_downscaling.6",
    "upscale_conv1": "output_upscaling.0",
    "upscale_layer_norm": "output_upscaling.1",
    "upscale_conv2": "output_upscaling.3",
    "layer_norm": "norm",
    "projection": "proj",
    "o_proj": "out_proj",
    "mlp.proj_in": "mlp.layers.0",
    "mlp.proj_out": "mlp.layers.1",
}


def official_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors under the names of sam2.1_hiera_<size>.pt, and some of the video's, which are not read."""
    state = {"maskmem_tpos_enc": torch.zeros(7), "no_mem_pos_enc": torch.zeros(1), "no_obj_ptr": torch.zeros(1)}
    state |= {"memory_attention.layers.0.norm1.weight": torch.zeros(2), "obj_ptr_proj.layers.0.weight": torch.zeros(2)}
    for key, value in model.state_dict().items():
        if "mlps" in key or "_head." in key:  # three layers, counted in the file
            key = key.replace("layers.0", "layers.1").replace("proj_in", "layers.0").replace("proj_out", "layers.2")
        for ours, theirs in TO_OFFICIAL.items():
            key = key.replace(ours, theirs)
        key = re.sub(r"(neck\.convs\.\d)", r"\1.conv", key)
        if key.endswith("prompt_encoder.point_embed.weight"):
            stem = "sam_prompt_encoder.point_embeddings"
            state |= {f"{stem}.{number}.weight": row[None].clone() for number, row in enumerate(value)}
        elif not key.startswith("shared_image_embedding"):
            state[key] = value
    return state


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = transformers.Sam2Model(sam2_config()).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn_like(value) * 0.2)
        made.shared_image_embedding.positional_embedding.copy_(
            made.prompt_encoder.shared_embedding.positional_embedding
        )
    return made


def put(state: dict[str, torch.Tensor], path: Path, monkeypatch) -> Path:
    torch.save({"model": state}, path)
    monkeypatch.setitem(CONFIGS, "sam2.1_tiny", sam2_config().to_dict())
    monkeypatch.setitem(ORIGINAL_SHA256, sha256_file(path), "sam2.1_tiny")
    return path


@torch.inference_mode()
def test_an_official_file_gives_the_model_s_own_outputs(model, tmp_path, monkeypatch):
    path = put(official_state(model), tmp_path / "sam2.1_hiera_tiny.pt", monkeypatch)
    install_teacher(str(path), tmp_path, tmp_path / "cache", tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher", torch.device("cpu")).model
    found, wanted = loaded.state_dict(), model.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(value, wanted[key]) for key, value in found.items())
    pixels, boxes = torch.randn(1, 3, 64, 64), torch.tensor([[[4.0, 5.0, 40.0, 60.0]]])
    model.mask_decoder.dynamic_multimask_via_stability = False
    for many in (False, True):
        one, other = (each(pixel_values=pixels, input_boxes=boxes, multimask_output=many) for each in (loaded, model))
        assert torch.equal(one.pred_masks, other.pred_masks) and torch.equal(one.iou_scores, other.iou_scores)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sam2.1_tiny", 38_962_498),
        ("sam2.1_small", 46_060_354),
        ("sam2.1_base_plus", 80_850_178),
        ("sam2.1_large", 224_446_642),
    ],
)
def test_each_size_has_the_authors_number_of_parameters(name, parameters):
    """`parameters`: of their code, of which 7,521,777 are for videos."""
    with torch.device("meta"):
        made = transformers.Sam2Model(transformers.Sam2Config(vision_config=CONFIGS[name]["vision_config"]))
    assert sum(value.numel() for value in made.parameters()) == parameters - 7_521_777


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("image_encoder.trunk.blocks.1.proj.weight", "1 tensors of Sam2Model .* first vision_encoder.*proj"),
        (
            "sam_prompt_encoder.point_embeddings.3.weight",
            "1 tensors of .* of another shape, first prompt_encoder.point_embed",
        ),
    ],
)
def test_a_missing_tensor_is_one_line(model, tmp_path, monkeypatch, lost, why):
    state = official_state(model)
    del state[lost]
    path = put(state, tmp_path / "sam2.1_hiera_tiny.pt", monkeypatch)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: not a sam2\.1_tiny checkpoint: .*{why}") as error:
        install_teacher(str(path), tmp_path, tmp_path / "cache", tmp_path / "teacher")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "teacher").exists()


def test_other_bytes_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    assert sam2_file.torch is sam_teacher.torch is torch
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"another pickle")
    with pytest.raises(UserError, match=r"sam2\.1_hiera_tiny\.pt: not opened: its SHA-256, .* sam2\.1_large\)\. Other"):
        install_teacher(str(tmp_path / "sam2.1_hiera_tiny.pt"), tmp_path, tmp_path, tmp_path / "teacher")
