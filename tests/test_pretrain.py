"""Pre-training: losses by hand, the official forward pass, a step that learns, weights that the pipeline can load."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages import pretrain_backbone, pretrain_teacher
from stages.pretrain_teacher import CONFIG, Prompts, forward, iou, loss, mask_losses
from stages.procedural.shapes import KINDS
from stages.student.backbone import load_backbone
from stages.supervision.boxes2pixels import losses
from stages.teacher.sam import build_teacher, load_teacher

SMALL = CONFIG.model_copy(update={"depth": 1, "embed_dim": 32, "global_attn_indexes": [0], "patch_size": 16})


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_teacher(SMALL)


@pytest.fixture(scope="module")
def batch():
    samples = [Prompts(0, 4)[number] for number in range(4)]
    return tuple(torch.stack(part) for part in list(zip(*samples, strict=True))[:4])


def test_a_sure_and_right_mask_costs_nothing_and_a_sure_and_wrong_one_much():
    masks = torch.zeros(1, 6, 9, dtype=torch.bool)
    masks[:, 1:4, 2:7] = True
    right = torch.where(masks, 50.0, -50.0)[:, None]
    right_loss, wrong_loss = mask_losses(torch.cat([right, -right], dim=1), masks)[0].tolist()
    assert right_loss == pytest.approx(0, abs=1e-5)
    # focal: each of 54 pixels costs 50; Dice: no overlap, 15 + 39 pixels in all, one added above and below
    assert wrong_loss == pytest.approx(20 * 50 + 1 - 1 / 55, rel=1e-5)


def test_mask_losses_at_chance_by_hand():
    masks = torch.tensor([[[True, False]]])
    value = mask_losses(torch.zeros(1, 1, 1, 2), masks).item()
    assert value == pytest.approx(20 * 0.25 * math.log(2) + 1 - (2 * 0.5 + 1) / (2 + 1), rel=1e-6)


def test_iou_by_hand():
    masks = torch.tensor([[[True, True, False]]])
    logits = torch.tensor([[[[1.0, -1.0, 1.0]], [[1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0]]]])
    assert iou(logits, masks)[0].tolist() == pytest.approx([1 / 3, 1, 0])
    empty = torch.zeros_like(masks)
    assert iou(logits[:, 2:], empty).item() == 0


def test_the_training_s_forward_pass_is_segment_anything_s(sam, batch):
    images, sizes_hw, boxes, _ = batch
    sizes_hw = torch.tensor([[128, 128], [70, 128], [128, 51], [128, 128]])
    with torch.no_grad():
        logits, scores = forward(sam.eval(), images, sizes_hw, boxes)
        for index, (height, width) in enumerate(sizes_hw.tolist()):
            one = {"image": images[index, :, :height, :width], "boxes": boxes[index : index + 1]}
            for multimask, wanted in ((False, slice(0, 1)), (True, slice(1, 4))):
                [found] = sam([one | {"original_size": (height, width)}], multimask_output=multimask)
                torch.testing.assert_close(scores[index, wanted], found["iou_predictions"][0])
                upsampled = torch.nn.functional.interpolate(found["low_res_logits"], (128, 128), mode="bilinear")
                torch.testing.assert_close(logits[index, wanted], upsampled[0], atol=1e-4, rtol=1e-4)


def test_the_teacher_learns_a_batch_by_heart(sam, batch):
    optimizer = torch.optim.AdamW(sam.train().parameters(), lr=2e-3)
    values = []
    for _ in range(8):
        value = loss(sam, *batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_every_weight_that_a_box_prompt_uses_gets_a_gradient(sam, batch):
    loss(sam, *batch).backward()
    without = {name for name, parameter in sam.named_parameters() if parameter.grad is None}
    # prompts of points and of masks are never shown, as in the pipeline
    unused = (
        "prompt_encoder.point_embeddings.0",
        "prompt_encoder.point_embeddings.1",
        "prompt_encoder.not_a_point_embed",
        "prompt_encoder.mask_downscaling",
    )
    assert {name for name, _ in sam.named_parameters() if name.startswith(unused)} == without


def test_training_twice_gives_the_same_loadable_teacher(tmp_path):
    options = {"steps": 2, "batch_size": 2, "save_every": 1, "held_out_prompts": 6, "workers": 0, "device": "cpu"}
    for name in ("one", "two"):
        pretrain_teacher.main(tmp_path / name, tmp_path / f"{name}.json", **options)
    sam, config = load_teacher(tmp_path / "one")
    assert config == CONFIG
    assert {value.dtype for value in load_file(tmp_path / "one/model.safetensors").values()} == {torch.float16}
    assert sum(parameter.numel() for parameter in sam.parameters()) < 2_000_000
    for file in ("one/model.safetensors", "one/config.json", "one.json"):
        assert (tmp_path / file).read_bytes() == (tmp_path / file.replace("one", "two")).read_bytes()
    scores = json.loads((tmp_path / "one.json").read_text())
    assert scores["steps"] == 2
    assert scores["prompts"] == 6
    assert 0 <= scores["iou"] <= 1


def test_scenes_have_labels_of_kinds_and_are_the_same_every_time():
    scenes = pretrain_backbone.Scenes(3, 6)
    found = [scenes[number] for number in range(len(scenes))]
    for image, labels in found:
        assert image.shape == (3, *labels.shape)
        assert 0 <= image.min() <= image.max() <= 1
        assert 0 <= labels.min() <= labels.max() <= len(KINDS)
    assert len({int(value) for _, labels in found for value in labels.unique()}) > 2
    assert torch.equal(scenes[4][0], found[4][0])
    assert torch.equal(scenes[4][1], found[4][1])
    assert not torch.equal(pretrain_backbone.Scenes(4, 6)[4][0], found[4][0])


def test_defects_wanted_for_a_scene_are_none_to_five():
    counts = [len(pretrain_backbone.wanted(np.random.default_rng(seed))) for seed in range(60)]
    assert set(counts) == {0, 1, 2, 3, 4, 5}


def test_the_backbone_learns_a_batch_by_heart():
    torch.manual_seed(0)
    student = pretrain_backbone.untrained().train()
    assert all(parameter.requires_grad for parameter in student.parameters())
    images, labels = (
        torch.stack(part) for part in zip(*(pretrain_backbone.Scenes(0, 3)[n] for n in (0, 1)), strict=True)
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    values = []
    for _ in range(6):
        named, _ = losses(
            student(images, with_binary=True), labels, pretrain_backbone.CLASS_WEIGHTS, pretrain_backbone.LOSS, tau=None
        )
        value = sum(named.values())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_a_trained_backbone_is_one_that_the_student_can_load(tmp_path):
    out, metrics = tmp_path / "backbone", tmp_path / "metrics.json"
    options = {"steps": 1, "batch_size": 2, "save_every": 1, "held_out_scenes": 2, "workers": 0, "device": "cpu"}
    pretrain_backbone.main(out, metrics, **options)
    backbone, config = load_backbone(out, 224)
    assert config == pretrain_backbone.BACKBONE
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert (out / "model.safetensors").stat().st_size < 8_000_000
    with torch.no_grad():
        taps = backbone.eval()(torch.zeros(1, 3, 224, 224))
    assert [tap.shape for tap in taps] == [(1, 192, 16, 16)] * 4
    assert json.loads(metrics.read_text())["steps"] == 1
