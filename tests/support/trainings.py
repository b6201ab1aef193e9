"""Trainings of seconds: plans, methods and samples that can be stopped anywhere."""

import itertools
import signal

import pytest
import torch
from torch.utils.data import Dataset

from stages.common.errors import Stopped
from stages.losses.method import Method, TrainSplit
from stages.student import plugins
from stages.student.segmenter import Segmenter
from stages.training import class_weights, loop
from stages.training.config import AugmentParams, Plan, TrainParams
from stages.training.loop import fit
from stages.training.processes import ALONE
from tests.support.train_split import UNREAD

CPU = torch.device("cpu")
NEVER = 10**9
LOSS = {"method": "boxes2pixels", "fine": 0.5, "binary": 0.5, "beta": 0.4}


@pytest.fixture(autouse=True)
def few_frequency_samples(monkeypatch):
    """For the modules that import it: class frequencies of 16 samples."""
    monkeypatch.setattr(class_weights, "FREQUENCY_SAMPLES", 16)


def plan(network: Segmenter, epochs=2, selfcorr=None, supervision=None, **changes) -> Plan:
    """A short training of `network`."""
    train = {
        "epochs": epochs,
        "min_steps": 0,
        "batch_size": 2,
        "micro_batches": 1,
        "trusted_share": 0.5,
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
    return Plan(
        network=network.config.network,
        view=network.config.view,
        class_weights="frequency",
        supervision=supervision or {**LOSS, "selfcorr": selfcorr},
        train=TrainParams(**{**train, **changes}),
        code={},
    )


def method_of(plan: Plan, split: TrainSplit | None = None) -> Method:
    """The plan's method, for `split` or, where it reads none, for two classes."""
    module = plugins.load("methods", plan.supervision["method"], "supervision.method")
    return module.Method(module.Params.model_validate(plan.supervision), split or UNREAD)


def groups_of(network: Segmenter) -> list[list[str]]:
    """Names of the parameters in both groups of Muon: those that it chooses from by shape, and AdamW's."""
    names = {id(value): name for name, value in network.named_parameters()}
    groups = loop.optimizer_of(network, plan(network).train).param_groups
    return [[names[id(value)] for value in group["params"]] for group in groups]


def train(network: Segmenter, samples, plan: Plan, validate, checkpoint=None, split=None, workers=0, processes=ALONE):
    """`fit` on the CPU by the plan's method; `validate`: student to its score."""
    scores = lambda student: {"val_miou_anom": validate(student)}  # noqa: E731
    return fit(network, samples, plan, method_of(plan, split), scores, CPU, checkpoint, workers, processes)


def stopped_at(calls: int):
    """A function that passes its argument through, and at its call number `calls` ends the training as Ctrl-C does."""
    count = itertools.count(1)

    def passed(value):
        if next(count) == calls:
            raise Stopped(signal.SIGINT)
        return value

    return passed


class Watched(Dataset):
    """Samples each of which passes through `passed`."""

    def __init__(self, inner, passed):
        self.inner, self.passed, self.images, self.labels, self.seed = inner, passed, inner.images, inner.labels, 0

    def __getitem__(self, number):
        return self.passed(self.inner[number])
