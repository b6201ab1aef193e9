"""The training loop: it learns, repeats itself to the bit, and keeps its promises about weights, EMA and stopping."""

import itertools
import math
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from stages.common.errors import Stopped, UserError
from stages.common.params import load_params
from stages.data.tables import IGNORE
from stages.losses.bank import paster
from stages.methods.config import PARAMS_OF, Boxes2PixelsParams, SelfcorrParams
from stages.methods.methods import METHODS
from stages.plan import Params, resolve
from stages.training import loop
from stages.training.config import AugmentParams, Plan, TrainParams
from stages.training.loop import fit, weights_of
from tests.support.tiny_student import student
from tests.test_samples import PLAIN, crops, shards  # noqa: F401

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent
LOSS = {"method": "boxes2pixels", "fine": 0.5, "binary": 0.5, "beta": 0.4}


@pytest.fixture(autouse=True)
def few_frequency_samples(monkeypatch):
    monkeypatch.setattr(loop, "FREQUENCY_SAMPLES", 16)


def plan(network, epochs=2, selfcorr=None, supervision=None, **changes) -> Plan:
    """A short training of a student or a baseline."""
    train = {
        "epochs": epochs,
        "batch_size": 2,
        "defect_share": 0.5,
        "augment": AugmentParams(flip=True, brightness=0.1, contrast=0.1, saturation=0.0, blur_px=0.0),
        "optimizer": "muon",
        "lr": 2e-3,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.9,
        "validate_every": 1,
        "patience": 99,
    }
    config = network.config
    return Plan(
        student=getattr(config, "student", None),
        network=getattr(config, "network", None),
        view=config.view,
        class_weights="frequency",
        supervision=supervision or Boxes2PixelsParams(**LOSS, selfcorr=selfcorr),
        train=TrainParams(**{**train, **changes}),
    )


def test_a_short_run_learns_and_does_not_collapse(shards):  # noqa: F811
    network = student()
    better_and_better = itertools.count()
    trained, history = fit(network, crops(shards), plan(network, epochs=30), lambda _: next(better_and_better), CPU)
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]
    image, _, labels, _ = crops(shards, defect_share=1.0, augment=PLAIN)[0]
    with torch.no_grad():
        predicted = trained(image[None], with_binary=False).fine.argmax(1)
    assert (predicted[0][(labels > 0) & (labels != IGNORE)] > 0).float().mean() > 0.5


def test_the_same_plan_gives_the_same_bits_whatever_the_number_of_workers(shards):  # noqa: F811
    results = []
    for workers in (0, 0, 2):
        network = student()
        trained, history = fit(network, crops(shards), plan(network), lambda _: 0.0, CPU, workers=workers)
        results.append((trained.state_dict(), history))
    for state, history in results[1:]:
        assert history == results[0][1]
        assert all(torch.equal(value, results[0][0][key]) for key, value in state.items())


def stopped_at(calls: int):
    """A function that passes its argument through, and at its call number `calls` ends the training as Ctrl-C does."""
    count = itertools.count(1)

    def passed(value):
        if next(count) == calls:
            raise Stopped(signal.SIGINT)
        return value

    return passed


class Watched(Dataset):
    """Crops whose every sample passes through `passed`."""

    def __init__(self, inner, passed):
        self.inner, self.passed, self.photos, self.labels, self.seed = inner, passed, inner.photos, inner.labels, 0

    def __getitem__(self, number):
        return self.passed(self.inner[number])


NEVER = 10**9


@pytest.mark.parametrize(("sample", "validation"), [(3, NEVER), (5, NEVER), (12, NEVER), (NEVER, 1), (NEVER, 3)])
def test_a_training_stopped_anywhere_goes_on_and_ends_at_the_same_bits(
    shards,  # noqa: F811
    tmp_path,
    capsys,
    sample,
    validation,
):
    """Three epochs of two steps of two samples; stopped in an epoch, between two, in the last step, in a validation."""

    def trained(checkpoint, sample=NEVER, validation=NEVER):
        network, passed = student(), stopped_at(validation)
        selfcorr = SelfcorrParams(tau=0.02, warmup=0.5)
        # a score that any other weights would miss
        score = lambda average: passed(-average.fine.logits.weight.double().abs().sum().item())  # noqa: E731
        samples = Watched(crops(shards), stopped_at(sample))
        result, history = fit(network, samples, plan(network, 3, selfcorr), score, CPU, checkpoint)
        return {key: value.numpy().tobytes() for key, value in result.state_dict().items()}, history

    undisturbed = trained(None)
    with pytest.raises(Stopped):
        trained(tmp_path / "checkpoint", sample, validation)
    assert trained(tmp_path / "checkpoint") == undisturbed
    assert f"going on from step {(sample - 1) // 2 if sample < NEVER else 2 * validation} " in capsys.readouterr().err


def of_project(run: str) -> Plan:
    """The plan of one of the project's own runs."""
    return resolve(load_params(Params, ROOT / "params.yaml"), run)


METHOD_RUNS = ("two_sided", "boxinst", "discobox", "boxteacher", "boxseg")


def test_there_is_a_run_of_every_method():
    methods = {of_project(run).supervision.method for run in (*METHOD_RUNS, "boxes2pixels")}
    assert methods == set(METHODS) == set(PARAMS_OF)


@pytest.mark.parametrize("run", METHOD_RUNS)
def test_every_method_trains_and_goes_on_to_the_same_bits(shards, tmp_path, run):  # noqa: F811
    """Six steps, stopped in the fifth; with whatever the method has learnt about its student, and copy-paste."""
    supervision = of_project(run).supervision
    if run == "two_sided":
        supervision = supervision.model_copy(update={"warmup": 0.2})

    def trained(checkpoint, sample=NEVER):
        network = student()
        samples = Watched(crops(shards, with_boxes=True, defect_share=1.0), stopped_at(sample))
        paste = None
        if run == "boxseg":
            easy = supervision.copy_paste.model_copy(update={"min_quality": 0.0, "min_area_px": 1})
            loose = supervision.model_copy(update={"copy_paste": easy})
            paste = paster(*shards, loose, network.config.view, seed=0)
        result, history = fit(
            network, samples, plan(network, 3, supervision=supervision), score, CPU, checkpoint, paste
        )
        return {key: value.numpy().tobytes() for key, value in result.state_dict().items()}, history

    score = lambda average: -average.fine.logits.weight.double().abs().sum().item()  # noqa: E731
    undisturbed = trained(None)
    assert all(math.isfinite(row["loss"]) for row in undisturbed[1].epochs)
    with pytest.raises(Stopped):
        trained(tmp_path / "checkpoint", sample=10)
    assert trained(tmp_path / "checkpoint") == undisturbed


def test_a_damaged_checkpoint_is_said_and_the_training_starts_over(shards, tmp_path, capsys):  # noqa: F811
    file, network = tmp_path / "checkpoint", student()
    fit(network, crops(shards), plan(network), lambda _: 0.0, CPU, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    network = student()
    fit(network, crops(shards), plan(network), lambda _: 0.0, CPU, file)
    said = capsys.readouterr().err
    assert "checkpoint: damaged, computed again" in said
    assert "going on" not in said


def test_frozen_weights_stay_and_the_others_move(shards):  # noqa: F811
    network = student()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainable = set(network.trainable())
    trained, _ = fit(network, crops(shards), plan(network), lambda _: 0.0, CPU)
    for key, value in trained.named_parameters():
        assert torch.equal(value, before[key]) == (key not in trainable), key


def test_the_ema_weights_of_the_best_validation_are_kept(shards):  # noqa: F811
    network, scores, states = student(), iter([0.1, 0.7, 0.3]), []

    def validate(candidate):
        assert not candidate.training
        states.append({key: value.clone() for key, value in candidate.state_dict().items()})
        return next(scores)

    trained, history = fit(network, crops(shards), plan(network, epochs=3), validate, CPU)
    assert [row["val_miou_anom"] for row in history.validations] == [0.1, 0.7, 0.3]
    assert all(torch.equal(value, states[1][key]) for key, value in trained.state_dict().items())


def test_it_stops_when_validation_no_longer_improves(shards):  # noqa: F811
    network, scores = student(), iter([0.5, 0.4, 0.4, 0.4])
    _, history = fit(network, crops(shards), plan(network, epochs=9, patience=2), lambda _: next(scores), CPU)
    assert len(history.epochs) == 3


def test_self_correction_waits_for_its_warm_up(shards):  # noqa: F811
    network = student()
    selfcorr = SelfcorrParams(tau=0.02, warmup=0.5)
    _, history = fit(network, crops(shards), plan(network, epochs=4, selfcorr=selfcorr), lambda _: 0.0, CPU)
    shares = [row["corrected_share"] for row in history.epochs]
    assert shares[:2] == [0.0, 0.0]
    assert min(shares[2:]) > 0


def test_a_loss_that_is_not_finite_stops_with_a_message(shards):  # noqa: F811
    network = student()
    with torch.no_grad():
        network.mixer[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"loss is nan at step 0"):
        fit(network, crops(shards), plan(network), lambda _: 0.0, CPU)


def test_class_weights_by_frequency_by_hand():
    # background 0.81^-1/8 = 1.0267; defects as a whole 0.19^-1/8 = 1.2307, shared out so that both classes count alike:
    # 0.095 / 0.16 and 0.095 / 0.03 of it; then scaled so that the mean over pixels is 1
    frequency = torch.tensor([0.81, 0.16, 0.03], dtype=torch.float64)
    raw = torch.tensor([1.0267, 1.2307 * 0.59375, 1.2307 * 3.16667])
    found = weights_of("frequency", frequency)
    torch.testing.assert_close(found, raw / (0.81 * raw[0] + 0.16 * raw[1] + 0.03 * raw[2]), rtol=1e-3, atol=1e-3)
    assert (found * frequency).sum().item() == pytest.approx(1)
    assert 0.16 * found[1].item() == pytest.approx(0.03 * found[2].item())


def test_the_papers_fixed_class_weights_stay_available_and_are_counted():
    fixed = [0.4, 4.0, 4.0]
    assert weights_of(fixed, torch.ones(3) / 3).tolist() == pytest.approx([0.4, 4.0, 4.0])
    with pytest.raises(UserError, match="needs 5 numbers"):
        weights_of(fixed, torch.ones(5) / 5)


def test_muon_takes_the_matrices_and_adamw_the_rest():
    """All weights of convolutions and linear maps but the last ones of both heads."""
    network = student()
    optimizer = loop.optimizer_of(network, plan(network).train)
    for parameter in network.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_muon = {name for name, value in network.trainable().items() if "momentum_buffer" in optimizer.state[value]}
    matrices = {name for name, value in network.trainable().items() if value.ndim > 1}
    assert by_muon == matrices - {"binary.logits.weight", "fine.logits.weight"}
    assert all("exp_avg" in optimizer.state[v] for k, v in network.trainable().items() if k not in by_muon)


def test_adamw_is_torchs_own_for_everything():
    network = student()
    optimizer = loop.optimizer_of(network, plan(network, optimizer="adamw").train)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["params"] == list(network.trainable().values())
