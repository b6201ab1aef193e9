"""The optimiser and the weight average that all trainings share."""

import pytest
import torch
from torch import nn

from stages.training.optimizer import muon, weight_average


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))


def test_muon_takes_matrices_and_adamw_the_rest_and_the_chosen():
    net = network()
    optimizer = muon(net.parameters(), [net[3].weight], lr=1e-3, weight_decay=0.0, adamw_lr=1e-4)
    net(torch.ones(2, 4, 8, 8)).sum().backward()
    optimizer.step()
    by_muon = {name for name, value in net.named_parameters() if optimizer.state[value]["use_muon"]}
    assert by_muon == {"0.weight"}  # not biases, norms, the depthwise convolution and the last map
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-4]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))


def test_one_learning_rate_is_the_default():
    net = network()
    assert [group["lr"] for group in muon(net.parameters(), [], lr=2e-3, weight_decay=0.0).param_groups] == [2e-3] * 2


def test_the_average_by_hand():
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
        average = weight_average(net, decay=0.3)
        net.weight.fill_(3.0)
        average.update(net, step=1)
        assert average.module.weight.item() == 3.0  # the first weights are forgotten at once
        net.weight.fill_(5.0)
        average.update(net, step=1000)
    assert average.module.weight.item() == pytest.approx(0.3 * 3 + 0.7 * 5)
    assert not average.module.training
