"""The training loop: it learns, repeats itself to the bit, and keeps its promises about weights, EMA and stopping."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from stages.common.errors import Stopped, UserError
from stages.data.tables import IGNORE
from stages.losses.config import SelfcorrParams
from stages.losses.method import Method
from stages.training import loop
from tests.support.tiny_student import student
from tests.support.train_split import PLAIN, samples_of
from tests.support.trainings import NEVER, Watched, few_frequency_samples, plan, stopped_at, train  # noqa: F401  a fixture among them

ROOT = Path(__file__).parent.parent


def test_a_short_run_learns_and_does_not_collapse(split):
    network = student()
    better_and_better = itertools.count()
    trained, history = train(network, samples_of(split), plan(network, epochs=30), lambda _: next(better_and_better))
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]
    image, _, labels, *_ = samples_of(split, defect_share=1.0, augment=PLAIN)[0]
    with torch.no_grad():
        predicted = trained(image[None], with_binary=False).fine.argmax(1)
    assert (predicted[0][(labels > 0) & (labels != IGNORE)] > 0).float().mean() > 0.5


def test_the_same_plan_gives_the_same_bits_whatever_the_number_of_workers(split):
    results = []
    for workers in (0, 0, 2):
        network = student()
        trained, history = train(network, samples_of(split), plan(network), lambda _: 0.0, workers=workers)
        results.append((trained.state_dict(), history))
    for state, history in results[1:]:
        assert history == results[0][1]
        assert all(torch.equal(value, results[0][0][key]) for key, value in state.items())


@pytest.mark.parametrize(("sample", "validation"), [(3, NEVER), (5, NEVER), (12, NEVER), (NEVER, 1), (NEVER, 3)])
def test_a_training_stopped_anywhere_resumes_and_ends_at_the_same_bits(
    split,
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
        samples = Watched(samples_of(split), stopped_at(sample))
        result, history = train(network, samples, plan(network, 3, selfcorr), score, checkpoint)
        return {key: value.numpy().tobytes() for key, value in result.state_dict().items()}, history

    undisturbed = trained(None)
    with pytest.raises(Stopped):
        trained(tmp_path / "checkpoint", sample, validation)
    assert trained(tmp_path / "checkpoint") == undisturbed
    assert f"resuming at step {(sample - 1) // 2 if sample < NEVER else 2 * validation} " in capsys.readouterr().err


def test_a_damaged_checkpoint_is_said_and_the_training_starts_over(split, tmp_path, capsys):
    file, network = tmp_path / "checkpoint", student()
    train(network, samples_of(split), plan(network), lambda _: 0.0, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    network = student()
    train(network, samples_of(split), plan(network), lambda _: 0.0, file)
    said = capsys.readouterr().err
    assert "checkpoint: damaged, computed again" in said
    assert "resuming" not in said


def test_frozen_weights_stay_and_the_others_move(split):
    network = student()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainable = set(network.trainable())
    trained, _ = train(network, samples_of(split), plan(network), lambda _: 0.0)
    for key, value in trained.named_parameters():
        assert torch.equal(value, before[key]) == (key not in trainable), key


def test_the_ema_weights_of_the_best_validation_are_kept(split):
    network, scores, states = student(), iter([0.1, 0.7, 0.3]), []

    def validate(candidate):
        assert not candidate.training
        states.append({key: value.clone() for key, value in candidate.state_dict().items()})
        return next(scores)

    trained, history = train(network, samples_of(split), plan(network, epochs=3), validate)
    assert [row["val_miou_anom"] for row in history.validations] == [0.1, 0.7, 0.3]
    assert all(torch.equal(value, states[1][key]) for key, value in trained.state_dict().items())


def test_the_last_weights_are_kept_and_none_stops_early_where_val_does_not_judge(split, monkeypatch):
    monkeypatch.setattr(Method, "judged_by_masks", lambda method: False)
    network, scores, states = student(), iter([0.7, 0.3, 0.2, 0.1]), []

    def validate(candidate):
        states.append({key: value.clone() for key, value in candidate.state_dict().items()})
        return next(scores)

    trained, history = train(network, samples_of(split), plan(network, epochs=4, patience=1), validate)
    assert len(history.validations) == 4
    assert all(torch.equal(value, states[-1][key]) for key, value in trained.state_dict().items())


def test_it_stops_when_validation_no_longer_improves(split):
    network, scores = student(), iter([0.5, 0.4, 0.4, 0.4])
    _, history = train(network, samples_of(split), plan(network, epochs=9, patience=2), lambda _: next(scores))
    assert len(history.epochs) == 3


@pytest.mark.parametrize(("epochs", "min_steps", "wanted"), [(1, 5, 3), (1, 6, 3), (4, 5, 4), (2, 0, 2)])
def test_a_small_data_set_gets_more_epochs(split, epochs, min_steps, wanted):
    """Two steps an epoch: as many epochs more as make at least `min_steps`, and a validation after the last one."""
    network = student()
    asked = plan(network, epochs, min_steps=min_steps, validate_every=99)
    _, history = train(network, samples_of(split), asked, lambda _: 0.5)
    assert [row["epoch"] for row in history.epochs] == list(range(1, wanted + 1))
    assert [row["epoch"] for row in history.validations] == [wanted]
    assert history.epochs[-1]["lr"] < history.epochs[0]["lr"]


def test_self_correction_waits_for_its_warm_up(split):
    network = student()
    selfcorr = SelfcorrParams(tau=0.02, warmup=0.5)
    _, history = train(network, samples_of(split), plan(network, epochs=4, selfcorr=selfcorr), lambda _: 0.0)
    shares = [row["corrected_share"] for row in history.epochs]
    assert shares[:2] == [0.0, 0.0]
    assert min(shares[2:]) > 0


def test_a_loss_that_is_not_finite_stops_with_a_message(split):
    network = student()
    with torch.no_grad():
        network.mixer[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"loss is nan at step 0"):
        train(network, samples_of(split), plan(network), lambda _: 0.0)


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


def test_the_learning_rate_of_the_curves_is_that_of_the_epoch_s_last_step(split):
    """Two epochs of two steps: the cosine falls from 2e-3 in steps of a quarter of its half period."""
    _, history = train(student(), samples_of(split), plan(student()), lambda _: 0.0)
    wanted = [2e-3 * (1 + math.cos(math.pi * step / 4)) / 2 for step in (1, 3)]
    assert [row["lr"] for row in history.epochs] == pytest.approx(wanted)


def test_adamw_is_torchs_own_for_everything():
    network = student()
    optimizer = loop.optimizer_of(network, plan(network, optimizer="adamw").train)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["params"] == list(network.trainable().values())
