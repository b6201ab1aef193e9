"""ImageNet's EfficientNet-Lite0 from its package: its bytes are verified, and each tensor gets its place in timm's."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from stages.common.errors import UserError
from stages.student.efficientnet_lite0 import FILE, PACKAGE, SHA256, load_weights

CHECKPOINT = Path(find_spec(PACKAGE).origin).parent / FILE


def test_other_bytes_are_not_opened(tmp_path, monkeypatch):
    """Of another package of that name, which comes first on the path."""
    copy = tmp_path / PACKAGE / FILE
    copy.parent.mkdir(parents=True)
    copy.write_bytes(CHECKPOINT.read_bytes() + b"\0")
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UserError, match=rf"\.pth: SHA-256 is \w+, expected {SHA256}: install the package again"):
        load_weights()


def test_each_tensor_of_the_package_has_a_place_of_its_kind():
    """Both count the blocks of their stages differently, but have the same parts in the same order."""
    theirs, ours = torch.load(CHECKPOINT, weights_only=True), load_weights()
    counters = [key for key in ours if key.endswith(".num_batches_tracked")]
    assert len(theirs) == len(ours) == 247 + len(counters)
    for (name, value), (key, mine) in zip(theirs.items(), ours.items(), strict=True):
        assert name.rsplit(".", 1)[1] == key.rsplit(".", 1)[1] and torch.equal(value, mine), (name, key)
    assert ours["conv_stem.weight"].shape == (32, 3, 3, 3) and ours["classifier.weight"].shape == (1000, 1280)
