"""The embedded backbone: its samples, classes, losses and first filters; the student can load it."""

import numpy as np
import pytest
import torch
from torch import nn

from stages.pretraining.embedded_backbone import (
    BACKBONE,
    CLUTTER,
    CellClassifier,
    Scenes,
    cosines,
    loss,
    random_defects,
    save_backbone,
)
from stages.pretraining.world.procedural_shapes import KINDS
from stages.student.backbone import load_backbone


def test_scenes_have_labels_of_kinds_and_are_the_same_every_time():
    scenes = Scenes(3)
    found = [scenes[number] for number in range(8)]
    for image, labels in found:
        assert image.shape == (3, *(2 * side for side in labels.shape))
        assert 0 <= image.min() <= image.max() <= 1
        assert 0 <= labels.min() <= labels.max() <= CLUTTER == len(KINDS) + 1
    assert len({int(value) for _, labels in found for value in labels.unique()}) > 3
    assert torch.equal(scenes[4][0], found[4][0])
    assert torch.equal(scenes[4][1], found[4][1])
    assert not torch.equal(Scenes(4)[4][0], found[4][0])


def test_a_scene_gets_none_to_five_defects():
    counts = [len(random_defects(np.random.default_rng(seed))) for seed in range(60)]
    assert set(counts) == {0, 1, 2, 3, 4, 5}


def test_each_cell_is_read_from_its_own_patch():
    torch.manual_seed(0)
    classifier = CellClassifier().eval()
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    with torch.no_grad():
        classifier.cells[0].weight.zero_()
        features = torch.zeros(1, classifier.cells[0].in_channels, 2, 3)
        features[0, 0, 1, 2] = 1.0
        classifier.cells[0].weight[:, 0] = 1.0
        cells = (classifier.cells(features) - classifier.cells(torch.zeros_like(features)))[0, 0]
    assert cells.shape == (14, 21)
    wanted = torch.zeros(14, 21)
    wanted[7:, 14:] = 1
    torch.testing.assert_close(cells, wanted)


def test_the_backbone_overfits_a_batch():
    torch.manual_seed(0)
    classifier = CellClassifier().train()
    batch = [torch.stack(part) for part in zip(*(Scenes(0)[n] for n in (0, 1)), strict=True)]
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    values = []
    for _ in range(6):
        value = loss(classifier, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_clutter_classified_as_clutter_costs_nothing():
    """Dice counts clutter as no defect: the right class costs nothing, a class of defects does."""

    class Fixed(nn.Module):
        def __init__(self, labels):
            super().__init__()
            self.logits = nn.Parameter(20.0 * nn.functional.one_hot(labels, len(KINDS) + 2).permute(0, 3, 1, 2).float())

        def forward(self, images):
            return self.logits

    labels = torch.zeros(1, 6, 8, dtype=torch.long)
    labels[:, 1:3, 1:4], labels[:, 4:, 5:] = 2, CLUTTER
    right = loss(Fixed(labels), [torch.zeros(1), labels]).item()
    mistaken = labels.clone()
    mistaken[:, 4:, 5:] = 1
    assert right == pytest.approx(0, abs=1e-5)
    assert loss(Fixed(mistaken), [torch.zeros(1), labels]).item() > 0.3


def test_the_student_can_load_a_pretrained_backbone(tmp_path):
    classifier = CellClassifier()
    save_backbone(tmp_path / "backbone", classifier)
    backbone, config = load_backbone(tmp_path / "backbone", 224)
    assert config == BACKBONE
    assert (tmp_path / "backbone/model.safetensors").stat().st_size < 8_000_000
    with torch.no_grad():
        taps = backbone.eval()(torch.zeros(1, 3, 224, 224))
    assert [tap.shape for tap in taps] == [(1, 192, 16, 16)] * 4


def test_the_first_filters_are_orthogonal_and_the_first_of_them_is_brightness():
    filters = cosines(192, 14).reshape(192, -1)
    products = filters @ filters.T
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-10
    grey = np.full((3, 14, 14), 0.5).reshape(-1)
    answers = filters @ grey
    assert answers[0] > 0.1
    assert np.abs(answers[1:]).max() < 1e-10
