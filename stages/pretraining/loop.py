"""The loop that both embedded networks are trained by: Muon and AdamW, warm-up and cosine, clipping, EMA, snapshots.

Muon (Jordan 2024) trains the matrices of the transformer blocks, AdamW all else: in 200 steps the backbone's loss falls
to 1.61, with AdamW alone to 1.84.

A killed training goes on from its last snapshot and ends at the same bytes: sample i depends on (seed, i) alone, and
nothing else draws a number after the first weights.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.common.progress import progress
from stages.compute.checkpoint import load_state, save_state
from stages.compute.device import make_deterministic
from stages.compute.workdir import code_fingerprint
from stages.pretraining.config import PretrainParams

HELD_OUT_SEED = 1_000_003
"""Never a training seed: what is held out is the same for every training."""


def prepare(params: PretrainParams) -> None:
    """Threads, determinism and seed, before the first weights are drawn: the same machine gives the same bytes."""
    torch.set_num_threads(params.threads)
    make_deterministic()
    torch.manual_seed(params.seed)


def pretrain(
    title: str,
    network: nn.Module,
    samples: Dataset,
    blocks: list[nn.Module],
    loss: Callable[[nn.Module, list], Tensor],
    judge: Callable[[nn.Module], dict],
    params: PretrainParams,
    snapshot: Path,
) -> nn.Module:
    """Train `network` in place on `samples` (steps x batch_size of them, in order); returns its average (EMA).

    `blocks` are its transformer blocks. `loss(network, batch)` is a scalar. `judge(average)` is called at a snapshot,
    to be seen going on. The file `snapshot` is written every `snapshot_every` steps, taken up where it is of this very
    training, removed at the end.
    """
    average = copy.deepcopy(network).requires_grad_(False)
    device = next(network.parameters()).device.type
    muon, adamw = optimizers(network, blocks, params)
    parts = {"network": network, "average": average, "muon": muon, "adamw": adamw}
    identity = _identity(params)
    first = _resume(snapshot, identity, parts)
    if first:
        print(f"{title}: going on from step {first} ({snapshot})")
    numbers = range(first * params.batch_size, params.steps * params.batch_size)
    loader = DataLoader(samples, params.batch_size, sampler=numbers, num_workers=params.workers)
    bar = progress(loader, title, "step", total=params.steps - first)
    for step, batch in enumerate(bar, start=first):
        muon.param_groups[0]["lr"] = params.muon_lr * schedule(step, params)
        adamw.param_groups[0]["lr"] = params.lr * schedule(step, params)
        with torch.autocast(device, torch.bfloat16, enabled=params.bf16):
            value = loss(network, batch)
        network.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        muon.step()
        adamw.step()
        update(average, network, min(params.ema_decay, (step + 1) / (step + 10)))
        bar.set_postfix(loss=f"{value.item():.3f}", refresh=False)
        done = step + 1
        if done % params.snapshot_every == 0 and done < params.steps:
            bar.write(f"{title}: step {done}: {judge(average)}")
            state = {name: part.state_dict() for name, part in parts.items()}
            save_state(snapshot, {"identity": identity, "step": done, **state})
    snapshot.unlink(missing_ok=True)
    return average


def optimizers(
    network: nn.Module, blocks: list[nn.Module], params: PretrainParams
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the weights of all linear maps in `blocks`, AdamW for every other parameter of `network`."""
    linear = [part.weight for block in blocks for part in block.modules() if isinstance(part, nn.Linear)]
    taken = {id(weight) for weight in linear}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in taken]
    muon = torch.optim.Muon(linear, lr=params.muon_lr, weight_decay=params.weight_decay, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, lr=params.lr, weight_decay=params.weight_decay)


def schedule(step: int, params: PretrainParams) -> float:
    """Factor on the learning rate: up in a line over the warm-up, then down by a cosine to 0."""
    return min((step + 1) / params.warmup_steps, 0.5 + 0.5 * math.cos(math.pi * step / params.steps))


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * network, for parameters; buffers are taken over."""
    for mean, current in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(current, 1 - decay)
    for mean, current in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(current)


def _identity(params: PretrainParams) -> str:
    """What a snapshot must share to be taken up: the parameters, all code that is loaded, and torch."""
    return f"{params.model_dump_json()} {code_fingerprint()} torch {torch.__version__}"


def _resume(snapshot: Path, identity: str, parts: dict) -> int:
    """Load `snapshot` into `parts`; the number of steps done, 0 where there is none of this training."""
    state = load_state(snapshot)
    if state is None:
        return 0
    if state["identity"] != identity:
        print(f"{snapshot}: of other parameters or other code, starting over")
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
