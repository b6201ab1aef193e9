"""The teacher: the official layout, saving and loading, images that are not square."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.build_sam import _build_sam

from stages.common.errors import UserError
from stages.compute import device
from stages.teacher.image_encoders import OFFICIAL
from stages.teacher.sam import SamTeacher, build_sam, load_sam, save_sam
from tests.support.tiny_teacher import TINY, tiny_sam


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam(TINY).eval()


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_official_sizes_have_the_official_keys_and_shapes(name):
    with torch.device("meta"):
        ours, official = build_sam(OFFICIAL[name]), sam_model_registry[name]()
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in official.state_dict().items()
    }
    # what no shape tells: heads, attention windows, and the statistics that are no weights
    for mine, theirs in zip(ours.image_encoder.blocks, official.image_encoder.blocks, strict=True):
        assert (mine.window_size, mine.attn.num_heads) == (theirs.window_size, theirs.attn.num_heads)
    for mine, theirs in zip(
        ours.mask_decoder.transformer.layers, official.mask_decoder.transformer.layers, strict=True
    ):
        assert mine.self_attn.num_heads == theirs.self_attn.num_heads
    assert ours.image_encoder.img_size == official.image_encoder.img_size


def test_statistics_reach_the_teacher_and_are_the_official_ones_by_default(sam):
    assert (sam.pixel_mean.flatten().tolist(), sam.pixel_std.flatten().tolist()) == (TINY.pixel_mean, TINY.pixel_std)
    official = _build_sam(
        encoder_embed_dim=8, encoder_depth=1, encoder_num_heads=2, encoder_global_attn_indexes=[0], checkpoint=None
    )
    for config in OFFICIAL.values():
        torch.testing.assert_close(torch.tensor(config.pixel_mean), official.pixel_mean.flatten())
        torch.testing.assert_close(torch.tensor(config.pixel_std), official.pixel_std.flatten())


def test_official_addresses_are_the_authors():
    assert [config.source.rsplit("/", 1)[-1] for config in OFFICIAL.values()] == [
        "sam_vit_b_01ec64.pth",
        "sam_vit_l_0b3195.pth",
        "sam_vit_h_4b8939.pth",
        "mobile_sam.pt",
    ]


def test_a_saved_teacher_is_loaded_exactly(sam, tmp_path):
    save_sam(tmp_path / "teacher", sam, TINY)
    loaded, config = load_sam(tmp_path / "teacher")
    assert config == TINY
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.state_dict().keys() == sam.state_dict().keys()
    assert all(torch.equal(value, sam.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert torch.equal(loaded.pixel_mean, sam.pixel_mean)


def test_half_precision_on_disk_is_single_precision_in_memory(sam, tmp_path):
    save_sam(tmp_path / "teacher", sam, TINY, torch.float16)
    stored = load_file(tmp_path / "teacher/model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded, _ = load_sam(tmp_path / "teacher")
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, sam.state_dict()[key].half().float())


def test_saving_twice_gives_the_same_bytes(sam, tmp_path):
    for name in ("one", "two"):
        save_sam(tmp_path / name, sam, TINY)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_official_forward_pass_takes_an_image_that_is_not_square(sam):
    height, width = 30, 51
    image = torch.randint(0, 256, (3, 38, 64), dtype=torch.uint8)
    box = torch.tensor([[4.0, 5.0, 40.0, 20.0]])
    with torch.no_grad():
        [found] = sam([{"image": image, "boxes": box, "original_size": (height, width)}], multimask_output=True)
    assert found["masks"].shape == (1, 3, height, width)
    assert found["low_res_logits"].shape == (1, 3, 32, 32)
    assert found["iou_predictions"].shape == (1, 3)


def test_an_unreadable_teacher_is_a_user_error(sam, tmp_path):
    with pytest.raises(UserError, match=r"config\.json: not readable \(No such file.*expected that of a teacher"):
        load_sam(tmp_path / "nothing")
    folder = tmp_path / "teacher"
    save_sam(folder, sam, TINY)
    other = TINY.model_dump() | {"prompt_dim": 32}
    (folder / "config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UserError, match=r"not a readable teacher: Error.* in loading state_dict"):
        load_sam(folder)
    (folder / "config.json").write_text(json.dumps(TINY.model_dump() | {"colour": 1}), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: colour = 1"):
        load_sam(folder)


@pytest.mark.parametrize("has_it", [False, True])
def test_images_are_encoded_in_bf16_where_a_cpu_has_it_and_all_else_is_float32(has_it, monkeypatch):
    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: has_it)
    sam, dtypes = tiny_sam(), {}
    for name, part in (("image", sam.image_encoder.patch_embed), ("mask", sam.mask_decoder.output_upscaling)):
        part.register_forward_hook(lambda _, __, out, name=name: dtypes.update({name: out.dtype}))
    teacher, window = SamTeacher(sam), np.random.default_rng(1).integers(0, 256, (37, 90, 3), dtype=np.uint8)
    with torch.inference_mode():
        embedding = teacher.encode([window])
        found = teacher.decode(embedding, np.array([[5.0, 4.0, 30.5, 20.0]]))
    assert dtypes == {"image": torch.bfloat16 if has_it else torch.float32, "mask": torch.float32}
    assert {part.dtype for part in (embedding.image, *found)} == {torch.float32}
