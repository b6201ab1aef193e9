"""The torch-free way from image to label map is the way that training and evaluation go, in bounded memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.networks.student import save_student
from stages.runtime import tiling
from stages.runtime.network import Network, in_batches_of
from stages.runtime.torch_network import torch_runner
from stages.student import inference
from tests.test_student import student

SIZES_HW = [(56, 56), (57, 200), (131, 56), (30, 170), (13, 11), (150, 190)]


def photo_of(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth noise: an image with large and small structures."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (-(-size_hw[0] // 7), -(-size_hw[1] // 7), 3))
    return np.kron(coarse, np.ones((7, 7, 1), int))[: size_hw[0], : size_hw[1]].astype(np.uint8)


def trained(scale: str):
    """A student of random weights whose head was scaled up so that it sees all classes."""
    ours = student().eval()
    view = ours.config.view.model_copy(update={"scale": scale})
    ours.config = ours.config.model_copy(update={"view": view})
    with torch.no_grad():
        ours.fine.logits.weight.mul_(30)
    return ours


@pytest.mark.parametrize("scale", ["native", "stretch"])
def test_label_maps_are_those_of_training_and_evaluation(scale, tmp_path):
    ours = trained(scale)
    save_student(ours, tmp_path)
    network = Network(ours.config, "", torch_runner(tmp_path, "cpu"))
    seen = set()
    for size_hw in SIZES_HW:
        photo = photo_of(size_hw)
        wanted = inference.predict(ours, photo)
        found = tiling.predict(network, photo)
        np.testing.assert_array_equal(found.labels, wanted.argmax(0))
        np.testing.assert_allclose(found.confidence, wanted.max(0), atol=1e-3)
        seen |= set(np.unique(found.labels))
    assert seen == {0, 1, 2}, "a student that sees one class would prove nothing"


def pixelwise(classes: int, size_px: int) -> Network:
    """A network whose logits are a function of the pixel alone: class 1 where it is red, else background."""

    def run(tiles: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(tiles), classes + 1, *tiles.shape[1:3]), np.float32)
        logits[:, 1] = (tiles[..., 0] - 128) / 16
        return logits

    view = SimpleNamespace(scale="native", size_px=size_px)
    return Network(SimpleNamespace(names=["x"] * classes, view=view), "", run)


def test_a_small_defect_on_a_large_image_is_neither_scaled_away_nor_moved():
    photo = np.zeros((1485, 2640, 3), np.uint8)
    photo[700:720, 1301:1313, 0] = 255
    labels, confidence = tiling.predict(pixelwise(1, 518), photo)
    np.testing.assert_array_equal(labels, photo[..., 0] > 0)
    assert confidence.min() > 0.99


def test_memory_is_bounded_by_a_strip_not_by_classes_times_the_image():
    photo = np.zeros((2000, 900, 3), np.uint8)
    network = pixelwise(20, 112)
    tracemalloc.start()
    tiling.predict(network, photo)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    all_classes = 21 * 4 * photo.shape[0] * photo.shape[1]
    assert peak < all_classes / 3, f"{peak:,} bytes; the probabilities of all classes would take {all_classes:,}"


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_fixed_batch_takes_any_number_of_tiles(count):
    sizes = []

    def run(tiles):
        sizes.append(len(tiles))
        return tiles * 2

    tiles = np.random.default_rng(0).random((count, 2, 3), dtype=np.float32)
    np.testing.assert_array_equal(in_batches_of(3, run)(tiles), tiles * 2)
    assert set(sizes) == {3}
