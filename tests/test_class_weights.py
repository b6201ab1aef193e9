"""Class weights: the frequency of labels in samples, and what the loss makes of it."""

import pytest
import torch

from stages.common.errors import UserError
from stages.training import class_weights
from tests.support.train_split import samples_of


def test_class_frequency_is_the_share_of_known_pixels(split, monkeypatch):
    monkeypatch.setattr(class_weights, "FREQUENCY_SAMPLES", 20)
    samples = samples_of(split)
    counts = torch.ones(3, dtype=torch.float64)
    for number in range(20):
        for label in range(3):
            counts[label] += (samples.labels(number) == label).sum()
    torch.testing.assert_close(class_weights.class_frequency(samples, 3), counts / counts.sum())


def test_class_weights_by_frequency_by_hand():
    # background 0.81^-1/8 = 1.0267; defects as a whole 0.19^-1/8 = 1.2307, shared out so that both classes count alike:
    # 0.095 / 0.16 and 0.095 / 0.03 of it; then scaled so that the mean over pixels is 1
    frequency = torch.tensor([0.81, 0.16, 0.03], dtype=torch.float64)
    raw = torch.tensor([1.0267, 1.2307 * 0.59375, 1.2307 * 3.16667])
    found = class_weights.weights_of("frequency", frequency)
    torch.testing.assert_close(found, raw / (0.81 * raw[0] + 0.16 * raw[1] + 0.03 * raw[2]), rtol=1e-3, atol=1e-3)
    assert (found * frequency).sum().item() == pytest.approx(1)
    assert 0.16 * found[1].item() == pytest.approx(0.03 * found[2].item())


def test_the_papers_fixed_class_weights_stay_available_and_are_counted():
    fixed = [0.4, 4.0, 4.0]
    assert class_weights.weights_of(fixed, torch.ones(3) / 3).tolist() == pytest.approx([0.4, 4.0, 4.0])
    with pytest.raises(UserError, match="needs 5 numbers"):
        class_weights.weights_of(fixed, torch.ones(5) / 5)
