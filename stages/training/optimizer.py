"""The optimiser and the weight average (EMA) of every training: timm's Muon and ModelEmaV3, configured in one place."""

from collections.abc import Iterable

from timm.optim import Muon
from timm.utils import ModelEmaV3
from torch import nn


def muon(
    parameters: Iterable[nn.Parameter],
    by_adamw: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    adamw_lr: float | None = None,
) -> Muon:
    """Muon (Jordan 2024) for matrices; AdamW for all else and for `by_adamw`, those of `parameters` that give the
    logits.

    Muon takes the weights of convolutions and linear layers, reshaped to matrices (outputs, rest); biases, norms,
    embeddings and depthwise convolutions go to AdamW (timm decides by shape). Muon's updates have the size of AdamW's
    (arXiv 2502.16982), so that one learning rate suits both. `adamw_lr`: learning rate of `by_adamw`; None: `lr`.
    """
    by_adamw = list(by_adamw)
    chosen = {id(parameter) for parameter in by_adamw}
    groups = [
        {"params": [parameter for parameter in parameters if id(parameter) not in chosen]},
        {"params": by_adamw, "use_fallback": True, "lr": lr if adamw_lr is None else adamw_lr},
    ]
    return Muon(groups, lr=lr, weight_decay=weight_decay)


def weight_average(network: nn.Module, decay: float) -> ModelEmaV3:
    """EMA of the weights of `network`, starting from its present ones; `.module` is a network in evaluation mode with
    the averaged weights.

    Call `.update(network, step=n)` after step n, counted from 0. The decay rises to `decay`, so that the first weights
    are soon forgotten.
    """
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_power=0.8)
