"""The embedded teacher: losses by hand, SAM's forward pass, gradients, a batch that it overfits."""

import math

import pytest
import torch

from stages.pretraining.embedded_teacher import CONFIG, Prompts, clipped, first_teacher, forward, loss, mask_losses
from stages.student.efficientnet_lite0 import load_weights
from stages.teacher.image_encoders import Embedding, SamConfig
from stages.teacher.sam import build_sam, embed, propose

SMALL = {"prompt_dim": 32, "decoder_heads": 2, "decoder_mlp_dim": 32, "iou_head_dim": 32}


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam(CONFIG.model_copy(update=SMALL | {"blocks": 1}))


@pytest.fixture(scope="module")
def batch():
    samples = [Prompts(0)[number] for number in range(4)]
    return [torch.stack(part) for part in list(zip(*samples, strict=True))[:4]]


def test_a_confident_right_mask_costs_nothing_and_a_confident_wrong_one_much():
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


def test_the_training_s_forward_pass_is_segment_anything_s(batch):
    vit = {"patch_size": 24, "depth": 1, "embed_dim": 32, "num_heads": 2, "global_attn_indexes": [0]}
    sam = build_sam(SamConfig(name="small", image_size=192, source="random", **SMALL, **vit))
    images, sizes_hw, boxes, _ = batch
    sizes_hw = torch.tensor([[192, 192], [106, 192], [192, 81], [192, 192]])
    with torch.no_grad():
        logits, scores = forward(sam.eval(), images, sizes_hw, boxes)
        for index, (height, width) in enumerate(sizes_hw.tolist()):
            one = {"image": images[index, :, :height, :width], "boxes": boxes[index : index + 1]}
            for multimask, wanted in ((False, slice(0, 1)), (True, slice(1, 4))):
                [found] = sam([one | {"original_size": (height, width)}], multimask_output=multimask)
                torch.testing.assert_close(scores[index, wanted], found["iou_predictions"][0])
                upsampled = torch.nn.functional.interpolate(found["low_res_logits"], (192, 192), mode="bilinear")
                torch.testing.assert_close(logits[index, wanted], upsampled[0], atol=1e-4, rtol=1e-4)


def test_the_teacher_overfits_a_batch(sam, batch):
    optimizer = torch.optim.AdamW(sam.train().parameters(), lr=2e-3)
    values = []
    for _ in range(8):
        value = loss(sam, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_every_weight_that_a_box_prompt_uses_gets_a_gradient(sam, batch):
    loss(sam, batch).backward()
    without = {name for name, parameter in sam.named_parameters() if parameter.grad is None}
    # prompts of points and of masks are never shown, as in the pipeline
    unused = (
        "prompt_encoder.point_embeddings.0",
        "prompt_encoder.point_embeddings.1",
        "prompt_encoder.not_a_point_embed",
        "prompt_encoder.mask_downscaling",
    )
    frozen = "image_encoder.net"
    assert {name for name, _ in sam.named_parameters() if name.startswith((*unused, frozen))} == without


def test_the_backbone_is_imagenet_s_and_neither_its_weights_nor_its_statistics_are_trained(batch):
    sam = first_teacher(torch.device("cpu"))
    net, imagenet = sam.image_encoder.net, load_weights()
    loss(sam, batch).backward()
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, imagenet[key], rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_masks_are_made_of_the_early_map_too(sam, batch):
    images, _, boxes, _ = batch
    embedding = embed(sam.eval(), images / 128 - 1)
    assert embedding.image.shape == (4, 32, 24, 24)
    assert embedding.early.shape == (4, 4, 96, 96)
    masks, scores = propose(sam, embedding, boxes)
    assert masks.shape == (4, 4, 96, 96)
    without, same_scores = propose(sam, Embedding(embedding.image), boxes)
    assert torch.equal(scores, same_scores)
    with torch.no_grad():
        torch.nn.init.zeros_(sam.mask_decoder.mix[2].weight)
        torch.nn.init.zeros_(sam.mask_decoder.mix[2].bias)
    zero = Embedding(embedding.image, torch.zeros_like(embedding.early))
    torch.testing.assert_close(propose(sam, zero, boxes)[0], without)
    assert (masks - without).abs().max() > 1e-3


def test_logits_are_clipped_to_the_pixels_that_a_box_touches():
    logits = torch.zeros(2, 3, 4, 4)
    found = clipped(logits, torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.5, 2.5, 1.5, 4.0]]))
    wanted = torch.zeros(2, 4, 4, dtype=torch.bool)
    wanted[0, 0:2, 1:3] = True
    wanted[1, 2:4, 0:2] = True  # a pixel that the box only touches counts
    assert torch.equal(found, torch.where(wanted[:, None], logits, -torch.inf))
