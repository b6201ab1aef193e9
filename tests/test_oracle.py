"""The yardstick `truth`: it learns from trusted pixels and from nothing else."""

import pyarrow as pa
import pytest
import torch

from stages.common.errors import UserError
from stages.losses.batch import Moment
from stages.losses.method import TrainSplit
from stages.methods import boxes2pixels, truth
from tests.support.boxed import random_batch, random_logits
from tests.support.train_split import UNREAD

NOW = Moment(0.9, torch.ones(3))
VALUES = {"fine": 0.5, "binary": 0.5, "beta": 0.4}


def split(trusted: list[bytes | None]) -> TrainSplit:
    masks = pa.table({"trusted": pa.array(trusted, pa.binary())})
    return UNREAD._replace(masks=masks)


def losses(batch, logits):
    params = truth.Params(method="truth", **VALUES)
    named, _ = truth.Method(params, split([None, b"drawn"])).losses(logits, batch, NOW, None)
    return {name: value.item() for name, value in named.items()}


def test_labels_that_no_person_drew_teach_nothing():
    batch, logits = random_batch(2), random_logits(2)
    drawn = torch.zeros_like(batch.labels, dtype=torch.bool)
    drawn[:, ::2] = True
    other = torch.where(drawn, batch.labels, (batch.labels + 1) % 3)
    one, two = (losses(batch._replace(labels=labels, trusted=drawn), logits) for labels in (batch.labels, other))
    assert one == two and set(one) == {"fine", "binary"}
    nothing = losses(batch._replace(trusted=torch.zeros_like(drawn)), logits)
    assert nothing == {"fine": 0.0, "binary": 0.0}


def test_where_all_is_drawn_it_is_boxes2pixels_without_self_correction():
    batch, logits = random_batch(2), random_logits(2)
    batch = batch._replace(trusted=torch.ones_like(batch.labels, dtype=torch.bool))
    params = boxes2pixels.Params(method="boxes2pixels", selfcorr=None, **VALUES)
    expected, _ = boxes2pixels.Method(params, split([None])).losses(logits, batch, NOW, None)
    assert losses(batch, logits) == {name: value.item() for name, value in expected.items()}


def test_without_trusted_masks_it_is_refused():
    params = truth.Params(method="truth", **VALUES)
    with pytest.raises(UserError, match=r"supervision\.method = truth: no image of train has a trusted mask"):
        truth.Method(params, split([None, None]))
