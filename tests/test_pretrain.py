"""Pre-training: losses by hand, SAM's forward pass, training steps, resuming, weights that the pipeline can load."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import nn

from stages.common.params import load_params
from stages.compute.checkpoint import save_state
from stages.compute.workdir import work_folder
from stages.pretrain import Params, main
from stages.pretraining import embedded_backbone, embedded_teacher
from stages.pretraining.embedded_backbone import CLUTTER, CellClassifier, Scenes, backbone_task
from stages.pretraining.embedded_teacher import CONFIG, Prompts, clipped, forward, iou, loss, mask_losses
from stages.pretraining.pretrain_loop import Task, optimizer_of, pretrain, schedule
from stages.pretraining.world.procedural_shapes import KINDS
from stages.student.backbone import load_backbone
from stages.teacher.sam import build_sam

ROOT = Path(__file__).parent.parent
SMALL = CONFIG.model_copy(update={"depth": 1, "embed_dim": 32, "global_attn_indexes": [0], "patch_size": 15})


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam(SMALL)


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


def test_iou_by_hand():
    masks = torch.tensor([[[True, True, False]]])
    logits = torch.tensor([[[[1.0, -1.0, 1.0]], [[1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0]]]])
    assert iou(logits, masks)[0].tolist() == pytest.approx([1 / 3, 1, 0])
    empty = torch.zeros_like(masks)
    assert iou(logits[:, 2:], empty).item() == 0


def test_the_training_s_forward_pass_is_segment_anything_s(sam, batch):
    images, sizes_hw, boxes, _ = batch
    sizes_hw = torch.tensor([[120, 120], [66, 120], [120, 51], [120, 120]])
    with torch.no_grad():
        logits, scores = forward(sam.eval(), images, sizes_hw, boxes)
        for index, (height, width) in enumerate(sizes_hw.tolist()):
            one = {"image": images[index, :, :height, :width], "boxes": boxes[index : index + 1]}
            for multimask, wanted in ((False, slice(0, 1)), (True, slice(1, 4))):
                [found] = sam([one | {"original_size": (height, width)}], multimask_output=multimask)
                torch.testing.assert_close(scores[index, wanted], found["iou_predictions"][0])
                upsampled = torch.nn.functional.interpolate(found["low_res_logits"], (120, 120), mode="bilinear")
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
    assert {name for name, _ in sam.named_parameters() if name.startswith(unused)} == without


def test_logits_are_clipped_to_the_pixels_that_a_box_touches():
    logits = torch.zeros(2, 3, 4, 4)
    found = clipped(logits, torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.5, 2.5, 1.5, 4.0]]))
    wanted = torch.zeros(2, 4, 4, dtype=torch.bool)
    wanted[0, 0:2, 1:3] = True
    wanted[1, 2:4, 0:2] = True  # a pixel that the box only touches counts
    assert torch.equal(found, torch.where(wanted[:, None], logits, -torch.inf))


def params_file(folder: Path, **changed: int) -> Path:
    """data/weights/params.yaml with a training of seconds."""
    tree = YAML(typ="safe").load((ROOT / "data/weights/params.yaml").read_text())
    for section in tree.values():
        section |= {"steps": 4, "batch_size": 2, "snapshot_every": 2, "held_out": 6} | changed
    path = folder / "params.yaml"
    with path.open("w") as file:
        YAML().dump(tree, file)
    return path


MODULES = {"teacher": embedded_teacher, "backbone": embedded_backbone}


@pytest.mark.parametrize("name", MODULES)
def test_a_killed_training_resumes_and_ends_at_the_same_bytes(name, tmp_path, monkeypatch, capsys):
    params, loss = params_file(tmp_path), MODULES[name].loss
    steps = []

    def make(project: str, kill_at: int | None = None) -> None:
        """Train in a project of its own; a kill comes in the step `kill_at`."""

        def counted(network, batch):
            steps.append(len(steps))
            if len(steps) == kill_at:
                raise KeyboardInterrupt
            return loss(network, batch)

        steps.clear()
        (tmp_path / project / ".dvc").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / project))
        monkeypatch.setattr(MODULES[name], "loss", counted)
        main(name, params, tmp_path / project / "out", tmp_path / project / "metrics.json", device="cpu")

    def results(project: str) -> list[bytes]:
        files = ("out/model.safetensors", "out/config.json", "metrics.json")
        return [(tmp_path / project / file).read_bytes() for file in files]

    make("one")
    assert len(steps) == 4
    with pytest.raises(KeyboardInterrupt):
        make("two", kill_at=4)
    assert not (tmp_path / "two/out").exists()
    assert (work_folder() / f"training/pretrain_{name}.pt").exists()
    make("two")
    assert len(steps) == 2
    assert "resuming from step 2" in capsys.readouterr().out
    assert results("one") == results("two")
    make("two")
    assert steps == []  # a finished training is not repeated
    assert results("one") == results("two")
    assert {value.dtype for value in load_file(tmp_path / "one/out/model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "one/metrics.json").read_text())["steps"] == 4


@pytest.mark.parametrize("spoil", ["other parameters", "not a snapshot"])
def test_a_snapshot_of_another_training_is_not_resumed(spoil, tmp_path, capsys):
    snapshot = tmp_path / "snapshot.pt"
    torch.manual_seed(0)
    values = load_params(Params, params_file(tmp_path)).backbone
    net = nn.Linear(1, 1)
    task = Task(net, [net], lambda _: torch.arange(8.0), lambda net, x: net(x[:, None]).mean(), lambda *_: {}, None)

    assert isinstance(pretrain("net", task, values, snapshot), nn.Linear)
    if spoil == "not a snapshot":
        snapshot.write_bytes(b"half a file")
    else:
        save_state(snapshot, {"identity": "another", "step": 2})
    pretrain("net", task, values, snapshot)
    said = capsys.readouterr()
    assert "starting over" in said.out or "damaged, computed again" in said.err


def test_muon_trains_the_matrices_of_the_blocks_and_adamw_the_rest():
    values = load_params(Params, ROOT / "data/weights/params.yaml").backbone
    task = backbone_task(torch.device("cpu"))
    optimizer = optimizer_of(task, values)
    assert [group["lr"] for group in optimizer.param_groups] == [values.muon_lr, values.lr]
    loss = task.loss(task.network, [torch.stack(part) for part in zip(*(Scenes(0)[n] for n in (0, 1)), strict=True)])
    loss.backward()
    optimizer.step()
    by_muon = {name for name, value in task.network.named_parameters() if optimizer.state[value]["use_muon"]}
    assert by_muon == {
        f"backbone.vit.blocks.{block}.{part}.weight"
        for block in range(8)
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine():
    values = load_params(Params, ROOT / "data/weights/params.yaml").backbone
    factors = [schedule(step, values) for step in range(values.steps)]
    assert factors[0] == pytest.approx(1 / values.warmup_steps)
    assert max(factors) <= 1
    assert factors[values.steps // 2] == pytest.approx(0.5, abs=1e-3)
    assert factors[-1] == pytest.approx(0, abs=1e-5)


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
    counts = [len(embedded_backbone.random_defects(np.random.default_rng(seed))) for seed in range(60)]
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
        value = embedded_backbone.loss(classifier, batch)
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
    right = embedded_backbone.loss(Fixed(labels), [torch.zeros(1), labels]).item()
    mistaken = labels.clone()
    mistaken[:, 4:, 5:] = 1
    assert right == pytest.approx(0, abs=1e-5)
    assert embedded_backbone.loss(Fixed(mistaken), [torch.zeros(1), labels]).item() > 0.3


def test_the_student_can_load_a_pretrained_backbone(tmp_path):
    classifier = CellClassifier()
    embedded_backbone.save_backbone(tmp_path / "backbone", classifier)
    backbone, config = load_backbone(tmp_path / "backbone", 224)
    assert config == embedded_backbone.BACKBONE
    assert (tmp_path / "backbone/model.safetensors").stat().st_size < 8_000_000
    with torch.no_grad():
        taps = backbone.eval()(torch.zeros(1, 3, 224, 224))
    assert [tap.shape for tap in taps] == [(1, 192, 16, 16)] * 4


def test_both_embedded_networks_are_small():
    files = sorted((ROOT / "data/weights/embedded").glob("*/model.safetensors"))
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) < 16_000_000


def test_the_first_filters_are_orthogonal_and_the_first_of_them_is_brightness():
    filters = embedded_backbone.cosines(192, 14).reshape(192, -1)
    products = filters @ filters.T
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-10
    grey = np.full((3, 14, 14), 0.5).reshape(-1)
    answers = filters @ grey
    assert answers[0] > 0.1
    assert np.abs(answers[1:]).max() < 1e-10
