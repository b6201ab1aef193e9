"""What a checkpoint is found by: all that the bits of a training depend on; and which seeds there are."""

import pytest
import timm
import torch
import typer

from stages.common.workdir import fingerprint
from stages.train import identity, main
from tests.support.tiny_student import student
from tests.support.trainings import plan

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def key(seed=0, device=CPU) -> str:
    return fingerprint(identity(plan(student()), seed, [], device))


def test_a_seed_of_more_than_63_bits_is_refused_by_its_option():
    app = typer.Typer()
    app.command()(main)
    with pytest.raises(typer.BadParameter, match="9223372036854775807"):
        app(["plan.json", "--seed", "99999999999999999999"], standalone_mode=False)


def test_a_training_by_another_timm_whose_muon_it_is_does_not_resume(monkeypatch):
    before = key()
    assert key() == before != key(seed=1)
    monkeypatch.setattr(timm, "__version__", "0")
    assert key() != before


def test_a_training_on_another_model_of_gpu_does_not_resume(monkeypatch):
    keys = set()
    for name in ("A", "B"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        keys.add(key(device=GPU))
    assert len(keys | {key()}) == 3
