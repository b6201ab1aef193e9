"""The student on whole images: by tiles or stretched, the numpy way equals the same written down in PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.student import inference, tiling
from stages.student.inference import predict
from tests.support.tiny_student import SIZES_HW, decided_student, image_of


def tensor(image: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def stretched(student, image: torch.Tensor) -> torch.Tensor:
    """Probabilities (K+1, H, W) of the whole image, resized to the square and back."""
    size_hw = [student.config.view.size_px] * 2
    square = F.interpolate(image, size_hw, mode="bilinear", antialias=True, align_corners=False)
    logits = student(square, with_binary=False).fine
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False).softmax(1)[0]


def tiled(student, image: torch.Tensor) -> torch.Tensor:
    """Probabilities (K+1, H, W) of overlapping tiles, blended at the size of the whole image."""
    (height, width), size = image.shape[-2:], student.config.view.size_px
    image = inference.pad_to(image, size)
    total = covered = 0
    weight = torch.from_numpy(tiling.taper(size))
    for top in tiling.tile_starts(image.shape[-2], size):
        for left in tiling.tile_starts(image.shape[-1], size):
            around = (left, image.shape[-1] - left - size, top, image.shape[-2] - top - size)
            logits = student(image[..., top : top + size, left : left + size], with_binary=False).fine
            total = total + F.pad(logits * weight, around)
            covered = covered + F.pad(weight, around)
    return (total / covered)[0, :, :height, :width].softmax(0)


@pytest.mark.parametrize("scale", ["native", "stretch"])
@torch.inference_mode()
def test_labels_and_confidence_are_those_of_the_plain_formula(scale):
    student, seen = decided_student(scale), set()
    for size_hw in SIZES_HW:
        image = image_of(size_hw)
        wanted = {"native": tiled, "stretch": stretched}[scale](student, tensor(image)).numpy()
        labels, confidence = predict(student, image)
        np.testing.assert_array_equal(labels, wanted.argmax(0))
        np.testing.assert_allclose(confidence, wanted.max(0), atol=1e-4)
        seen |= set(np.unique(labels))
    assert seen == {0, 1, 2}, "a student that sees one class would prove nothing"


@pytest.mark.parametrize("scale", ["native", "stretch"])
@torch.inference_mode()
def test_an_image_of_the_network_s_size_is_one_plain_forward_pass(scale):
    student, image = decided_student(scale), image_of((56, 56), seed=1)
    wanted = student(tensor(image), with_binary=False).fine.softmax(1)[0].numpy()
    np.testing.assert_allclose(predict(student, image).confidence, wanted.max(0), atol=1e-5)


@pytest.mark.parametrize("size_hw", [(56, 56), (40, 100), (13, 11), (131, 56), (300, 410)])
def test_training_samples_are_padded_as_images_are(size_hw):
    image = image_of(size_hw)
    padded = inference.pad_to(tensor(image), 56)[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(padded, tiling.pad_to(image, 56), atol=1e-4)
