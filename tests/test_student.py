"""The student: the paper's size to the parameter, the exact sets that are trained, nothing built that nobody reads."""

import random

import pytest
import timm
import torch
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.common.params import read_sealed, write_sealed
from stages.networks.student import Network
from stages.student.backbone import PyramidBackbone, VitBackbone, load_backbone
from stages.student.config import BackboneConfig, ViewParams
from stages.student.decoder import SemanticDecoder
from stages.student.segmenter import load_student, save_student
from tests.support.tiny_student import TINY, backbone_config, student
from tests.support.trainings import groups_of

SMALL_DINOV2 = {"model_name": "vit_small_patch14_dinov2"}


def count(parameters) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_at_the_papers_size_every_missing_parameter_is_accounted_for():
    ours = student(size_px=518, width=256, timm_kwargs=SMALL_DINOV2)
    blocks_behind_the_deepest_tap = 4 * 1_775_232
    bitfit_of_those_blocks = 19_968
    # 1x1 laterals, six convolutions of the fusions, two of the detail branch, mixer, two heads
    biases_that_a_norm_cancels = 4 * 256 + 6 * 256 + (24 + 32) + 64 + 2 * 32
    assert count(ours.parameters()) == 27_627_669 - blocks_behind_the_deepest_tap - biases_that_a_norm_cancels
    assert count(ours.trainable().values()) == 5_632_533 - bitfit_of_those_blocks - biases_that_a_norm_cancels


def test_at_the_papers_size_it_runs_forward_and_backward():
    ours = student(size_px=518, width=256, timm_kwargs=SMALL_DINOV2)
    logits = ours(torch.rand(1, 3, 518, 518), with_binary=True)
    assert logits.fine.shape == (1, 3, 518, 518)
    assert logits.binary.shape == (1, 2, 518, 518)
    (logits.fine.square().mean() + logits.binary.square().mean()).backward()
    without = [name for name, parameter in ours.trainable().items() if parameter.grad is None]
    assert without == [], "every trainable parameter is used"
    assert all(torch.isfinite(parameter.grad).all() for parameter in ours.trainable().values())


def test_bitfit_trains_exactly_biases_and_norms_of_the_backbone():
    backbone = VitBackbone(backbone_config(), size_px=56)
    per_block = ("norm1.weight", "norm1.bias", "attn.qkv.bias", "attn.proj.bias")
    per_block += ("norm2.weight", "norm2.bias", "mlp.fc1.bias", "mlp.fc2.bias")
    expected = {f"vit.blocks.{block}.{name}" for block in range(8) for name in per_block}
    expected |= {"vit.patch_embed.proj.bias", "vit.norm.weight", "vit.norm.bias"}
    assert {name for name, parameter in backbone.named_parameters() if parameter.requires_grad} == expected


@pytest.mark.parametrize(
    ("kwargs", "of_attention"),
    [
        ({"model_name": "vit_small_patch16_dinov3_qkvb"}, {"attn.q_bias", "attn.v_bias", "attn.proj.bias"}),
        ({"model_name": "beit_base_patch16_224"}, {"attn.q_bias", "attn.v_bias", "attn.proj.bias"}),
        ({"model_name": "vit_tiny_patch16_224", "norm_layer": "rmsnorm"}, {"attn.qkv.bias", "attn.proj.bias"}),
    ],
)
def test_bitfit_finds_the_biases_and_norms_of_any_vit(kwargs, of_attention):
    small = {"depth": 8, "embed_dim": 24, "num_heads": 2}
    backbone = VitBackbone(backbone_config(kwargs | small), size_px=64)
    block = backbone.vit.blocks[7]
    norms = {f"{norm}.{name}" for norm in ("norm1", "norm2") for name, _ in getattr(block, norm).named_parameters()}
    expected = {*norms, *of_attention, "mlp.fc1.bias", "mlp.fc2.bias"}
    assert {name for name, parameter in block.named_parameters() if parameter.requires_grad} == expected
    assert all(parameter.requires_grad for parameter in backbone.vit.norm.parameters())


def test_freezing_survives_train_mode():
    ours = student()
    before = set(ours.trainable())
    ours.train()
    assert set(ours.trainable()) == before


def test_blocks_behind_the_deepest_tap_are_not_built():
    assert len(VitBackbone(backbone_config(), size_px=56).vit.blocks) == 8


def test_taps_are_the_normed_outputs_of_their_blocks():
    """Against timm's whole network run block by block."""
    torch.manual_seed(0)
    whole = timm.create_model(**TINY, img_size=56, num_classes=0).eval()
    cut = VitBackbone(backbone_config(), size_px=56).eval()
    cut.vit.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.vit.state_dict()})
    images = torch.rand(2, 3, 56, 56)
    x, wanted = whole._pos_embed(whole.patch_embed(images)), []
    for number, block in enumerate(whole.blocks):
        x = block(x)
        if number in (1, 2, 4, 7):
            wanted.append(whole.norm(x)[:, 1:].transpose(1, 2).reshape(2, 24, 4, 4))
    for ours, theirs in zip(cut(images), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("detail", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_ablations_leave_out_their_part_and_keep_the_resolution(detail, binary):
    ours = student(detail=detail, binary=binary)
    names = {name.split(".")[0] for name in ours.state_dict()}
    assert ("detail" in names, "binary" in names) == (detail, binary)
    seen = {}
    ours.mixer.register_forward_hook(lambda _, inputs, __: seen.update(size=inputs[0].shape[-2:]))
    ours(torch.rand(1, 3, 56, 56), with_binary=True)
    assert seen["size"] == (14, 14)


def test_the_binary_head_does_not_run_for_predictions():
    ours = student()
    ours.binary.register_forward_hook(lambda *_: pytest.fail("the binary head ran"))
    assert ours(torch.rand(1, 3, 56, 56), with_binary=False).binary is None


def test_the_first_prediction_is_the_prior_where_features_are_zero():
    ours = student()
    prior = torch.tensor([0.9, 0.08, 0.02])
    ours.fine.start_at(prior.log())
    with torch.no_grad():
        ours.fine.logits.weight.zero_()
    probabilities = ours.eval()(torch.rand(1, 3, 56, 56), with_binary=False).fine.softmax(1)
    torch.testing.assert_close(probabilities, prior.view(1, 3, 1, 1).expand(1, 3, 56, 56))


def test_the_decoder_goes_from_the_deepest_tap_up():
    """With phi silenced the result is the sum of the laterals: order and skips are as published."""
    torch.manual_seed(0)
    decoder = SemanticDecoder([6] * 4, [14] * 4, width=8).eval()
    for fusion in decoder.fusions:
        torch.nn.init.zeros_(fusion.phi[-1].weight)
        torch.nn.init.zeros_(fusion.phi[-1].bias)
    seen = []
    for fusion in decoder.fusions:
        fusion.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    taps = [torch.rand(1, 6, 2, 3) for _ in range(4)]
    output = decoder(taps)
    assert output.shape == (1, 1, 16, 24)
    for index, skip in zip((2, 1, 0), seen, strict=True):
        torch.testing.assert_close(skip, decoder.lateral[index](taps[index]))


def test_a_saved_student_predicts_the_same(tmp_path):
    ours = student().eval()
    save_student(ours, tmp_path / "model")
    again = load_student(tmp_path / "model")
    images = torch.rand(1, 3, 56, 56)
    assert torch.equal(ours(images, with_binary=False).fine, again(images, with_binary=False).fine)
    assert again.config == ours.config


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_student(student(), tmp_path / name)
    for file in ("student.safetensors", "student.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_full_checkpoint_loads_and_its_embedding_is_resampled_once(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    whole = timm.create_model(**TINY, img_size=56, num_classes=0)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(backbone_config().model_dump_json())
    backbone, _ = load_backbone(tmp_path, size_px=84)
    assert backbone.vit.pos_embed.shape == (1, 1 + 6 * 6, 24)
    assert [tap.shape for tap in backbone(torch.rand(1, 3, 84, 84))] == [(1, 24, 6, 6)] * 4
    torch.testing.assert_close(backbone.vit.blocks[7].mlp.fc1.weight, whole.blocks[7].mlp.fc1.weight)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"something": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(backbone_config().model_dump_json())
    with pytest.raises(UserError, match="are missing, the first is"):
        load_backbone(tmp_path, size_px=56)


def test_a_folder_without_a_student_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="not a trained student"):
        load_student(tmp_path)


LITE0 = BackboneConfig(
    name="tf_efficientnet_lite0",
    family="pyramid",
    timm_kwargs={"model_name": "tf_efficientnet_lite0"},
    img_size=64,
    mean=[0.5, 0.5, 0.5],
    std=[0.5, 0.5, 0.5],
    taps=[1, 2, 3, 4],
    source="random",
)


def pyramid_student(size_px=64, width=32) -> Network:
    torch.manual_seed(0)
    config = student(size_px=56, width=width).config
    view = ViewParams(scale="native", size_px=size_px)
    return Network(config.model_copy(update={"view": view, "backbone": LITE0}))


def test_a_pyramid_has_taps_of_falling_resolution_for_any_size():
    backbone = PyramidBackbone(LITE0, size_px=64)
    assert (backbone.channels, backbone.strides) == ([24, 40, 112, 320], [4, 8, 16, 32])
    taps = backbone(torch.rand(1, 3, 70, 100))
    assert [tuple(tap.shape[1:]) for tap in taps] == [(24, 18, 25), (40, 9, 13), (112, 5, 7), (320, 3, 4)]


def test_all_of_a_pyramid_is_trained():
    backbone = PyramidBackbone(LITE0, size_px=64)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    # timm's own count, without the classifier and the convolution before it, which lie behind the deepest tap
    assert count(backbone.parameters()) == 4_652_008 - 1_281_000 - (320 * 1280 + 2 * 1280)


def test_the_statistics_of_a_pyramid_stay_those_of_its_pre_training():
    ours = pyramid_student().train()
    before = {key: value.clone() for key, value in ours.backbone.state_dict().items() if "running" in key}
    ours(torch.rand(2, 3, 64, 64), with_binary=True)
    assert before and all(torch.equal(value, ours.backbone.state_dict()[key]) for key, value in before.items())
    assert ours.mixer[1].training, "the other norms learn theirs"


def test_a_student_on_a_pyramid_uses_all_it_trains_and_predicts_at_the_image_s_size():
    ours = pyramid_student(size_px=70)
    logits = ours(torch.rand(2, 3, 70, 70), with_binary=True)
    assert logits.fine.shape == (2, 3, 70, 70)
    (logits.fine.square().mean() + logits.binary.square().mean()).backward()
    assert [name for name, parameter in ours.trainable().items() if parameter.grad is None] == []


@pytest.mark.parametrize("classes", [2, 4, 40])
def test_adamw_gets_the_last_map_of_each_head_however_many_classes_there_are(classes):
    """Convolutions of Lite0 have 16 outputs, and those of the narrowest decoder 4."""
    for like in (pyramid_student(width=256), student(), student(binary=False)):
        config = like.config.model_copy(update={"names": [f"class {number}" for number in range(classes)]})
        network = Network(config)
        last = ["fine.logits.weight", "binary.logits.weight"][: 1 + config.network["binary"]]
        assert groups_of(network) == [[name for name in network.trainable() if name not in last], last]


def test_between_taps_of_falling_resolution_the_decoder_upsamples_and_halves_its_channels():
    decoder = SemanticDecoder([24, 40, 112, 320], [4, 8, 16, 32], width=32)
    assert [lateral[0].out_channels for lateral in decoder.lateral] == [4, 8, 16, 32]
    taps = [torch.rand(1, c, *hw) for c, hw in ((24, (9, 13)), (40, (5, 7)), (112, (3, 4)), (320, (2, 2)))]
    assert decoder(taps).shape == (1, 4, 9, 13)


def test_a_size_that_a_vit_cannot_cut_into_patches_is_refused():
    with pytest.raises(UserError, match=r"view\.size_px = 60: the backbone test needs a multiple of 14"):
        VitBackbone(backbone_config(), size_px=60)


def test_no_flipped_byte_of_a_student_is_silent(tmp_path):
    save_student(student(), tmp_path / "model")
    draw = random.Random(0)
    for path in sorted((tmp_path / "model").iterdir()):
        whole = path.read_bytes()
        for _ in range(40):
            flipped = bytearray(whole)
            flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            with pytest.raises(UserError) as caught:
                load_student(tmp_path / "model")
            assert path.name in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(whole)
    load_student(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch_size": 0}, "ZeroDivisionError|modulo by zero"),
        ({"model_name": None}, "model_name is missing"),
        ({"model_name": "hf-hub:someone/else"}, "timm would open anything else"),
        ({"checkpoint_path": "x.pth"}, "checkpoint_path is not allowed"),
        ({"num_heads": 0}, "Error"),
        ({"num_heads": 5}, "Error"),
        ({"unheard": 1}, "TypeError"),
        ({"depth": 10**6}, "less than or equal to 16384"),
        ({"depth": 101}, "depth = 101: allowed are 1 to 100 blocks"),
        ({"depth": "deep"}, "depth = deep: allowed are 1 to 100 blocks"),
        (dict.fromkeys(TINY) | {"model_name": "vit_giant_patch14_dinov2"}, "a larger network than its weights"),
        ({"embed_dim": 10**4}, "a larger network than its weights"),
        ({"mlp_ratio": 1e4}, "a larger network than its weights"),
        ({"embed_dim": 32}, "size mismatch"),
    ],
)
def test_a_hostile_configuration_is_one_line_and_builds_nothing_large(tmp_path, changes, reason):
    """Whoever wrote it computed its checksum too."""
    save_student(student(), tmp_path / "model")
    path = tmp_path / "model/student.json"
    values = read_sealed(path, "")
    kwargs = values["backbone"]["timm_kwargs"] | changes
    values["backbone"]["timm_kwargs"] = {key: value for key, value in kwargs.items() if value is not None}
    write_sealed(path, values)
    with pytest.raises(UserError, match=reason) as caught:
        load_student(tmp_path / "model")
    assert "\n" not in str(caught.value)
    write_sealed(path, values | {"backbone": None})
    with pytest.raises(UserError, match="not a trained student: AttributeError"):
        load_student(tmp_path / "model")


def test_a_backbone_without_a_name_is_of_an_earlier_version():
    with pytest.raises(ValidationError, match="model_name is missing: written by an earlier version, train again"):
        backbone_config({"patch_size": 14, "embed_dim": 24})
