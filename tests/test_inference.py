"""Images of any size: tiles cover everything, blend without seams, and keep rows and columns apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.student import inference
from stages.student.inference import predict
from stages.student.tiles import OVERLAP, taper, tile_starts
from tests.test_student import student


@given(length=st.integers(56, 6000), tile=st.sampled_from([56, 112, 224, 518]))
def test_tiles_cover_the_length_and_overlap(length, tile):
    length = max(length, tile)
    starts = tile_starts(length, tile)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= tile * (1 - OVERLAP) + 1).all()


@pytest.mark.parametrize("tile", [28, 56, 112, 518])
def test_the_blending_weight_equals_torchs_formula(tile):
    position = torch.arange(tile) + 0.5
    ramp = (torch.minimum(position, tile - position) / (tile * OVERLAP)).clamp(max=1)
    np.testing.assert_array_equal(taper(tile), (ramp[:, None] * ramp[None, :]).numpy())


def pixelwise(student, images):
    """A stand-in network: logits are a function of the pixel alone, so tiling must not show at all."""
    return torch.cat([images[:, :1] * 2, images[:, 1:2] - 1, images[:, 2:] * 3], dim=1)


@pytest.mark.parametrize("size_hw", [(56, 56), (57, 200), (131, 56), (30, 170), (13, 9)])
def test_tiles_blend_without_a_seam(monkeypatch, size_hw):
    monkeypatch.setattr(inference, "_forward", pixelwise)
    photo = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    wanted = pixelwise(None, image).softmax(1)[0].numpy()
    found = predict(student(), photo)
    assert found.shape == (3, *size_hw)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("size_hw", [(56, 56), (40, 100)])
def test_stretching_resizes_to_the_square_and_back(size_hw):
    network = student().eval()
    network.config = network.config.model_copy(
        update={"view": network.config.view.model_copy(update={"scale": "stretch"})}
    )
    photo = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    found = predict(network, photo)
    assert found.shape == (3, *size_hw)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    if size_hw == (56, 56):
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        wanted = network(image, with_binary=False).fine.softmax(1)[0].detach().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_image_of_the_tile_s_size_is_one_plain_forward_pass():
    network = student().eval()
    photo = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    wanted = network(image, with_binary=False).fine.softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(predict(network, photo), wanted, atol=1e-6)
