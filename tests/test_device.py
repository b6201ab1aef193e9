"""Devices: bfloat16 only where the processor has it, and the same attention however it is computed."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from stages.common.errors import UserError
from stages.compute import device
from stages.compute.device import device_of, model_of, multiplies_in_bf16, prefer_fast_kernels
from stages.training.micro_batches import logits_of
from tests.support.tiny_student import student

CPU = torch.device("cpu")


def test_a_device_that_is_not_available_is_one_line_with_the_allowed_values():
    assert device_of("cpu") == CPU
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name}: not available .*; auto, cpu or cuda"):
            device_of(name)


@pytest.mark.parametrize("has_it", [False, True])
def test_a_cpu_multiplies_in_bf16_if_it_has_instructions_for_it(has_it, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    assert multiplies_in_bf16(CPU) is has_it
    assert multiplies_in_bf16(torch.device("cuda"))
    assert model_of(CPU) == ("cpu, bfloat16" if has_it else "cpu")


@pytest.mark.parametrize("has_it", [False, True])
def test_attention_is_spelled_out_for_bf16_on_a_cpu_and_gives_the_same(has_it, monkeypatch):
    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: has_it)
    fused, spelled = student().eval(), student().eval()
    spelled.load_state_dict(fused.state_dict())
    prefer_fast_kernels(spelled, CPU)
    assert {block.attn.fused_attn for block in spelled.backbone.vit.blocks} == {not has_it}
    images = torch.rand(2, 3, *[fused.config.view.size_px] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            fused(images, with_binary=True).fine, spelled(images, with_binary=True).fine, atol=1e-5, rtol=1e-5
        )


def test_on_a_gpu_attention_stays_fused():
    network = student()
    prefer_fast_kernels(network, torch.device("cuda"))
    assert all(block.attn.fused_attn for block in network.backbone.vit.blocks)


@pytest.mark.parametrize("has_it", [False, True])
def test_depthwise_convolutions_multiply_in_float32_beside_bf16_and_keep_their_names(has_it, monkeypatch):
    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: has_it)
    network = nn.Sequential(Conv2dSame(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    faster = copy.deepcopy(network)
    prefer_fast_kernels(faster, CPU)
    faster = copy.deepcopy(faster)  # as the average of the weights is made
    assert [type(part) is not type(before) for part, before in zip(faster, network, strict=True)] == [
        has_it,
        has_it,
        False,
    ]
    faster.load_state_dict(network.state_dict())
    images = torch.rand(2, 8, 13, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(faster(images), network(images))
    with torch.autocast("cpu", torch.bfloat16):
        dtypes = [part(images).dtype for part in faster]
    assert dtypes == [torch.float32 if has_it else torch.bfloat16] * 2 + [torch.bfloat16]


@pytest.mark.parametrize("has_it", [False, True])
def test_training_s_logits_are_float32_and_near_float32_s(has_it, monkeypatch):
    monkeypatch.setattr(device, "multiplies_in_bf16", lambda _: has_it)
    network = student().eval()
    seen = []
    convolution = next(part for part in network.modules() if isinstance(part, nn.Conv2d) and part.bias is None)
    convolution.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    images = torch.rand(2, 3, *[network.config.view.size_px] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, exact = logits_of(network, images), copy.deepcopy(network)(images, with_binary=True)
    assert seen[0] == (torch.bfloat16 if has_it else torch.float32)
    for ours, reference in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - reference).abs().max() <= (0.05 * reference.std() if has_it else 0)
