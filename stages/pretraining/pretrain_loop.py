"""The training loop of the embedded teacher: Muon and AdamW, warm-up and cosine, clipping, EMA, snapshots.

A killed training resumes from its last snapshot and ends at the same bytes: sample i depends on (seed, i) alone, and
nothing else draws random numbers after the first weights.
"""

import math
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from timm.optim import Muon
from torch import nn
from torch.utils.data import DataLoader

from stages.common.progress import progress
from stages.common.workdir import code_fingerprint
from stages.pretraining import embedded_teacher
from stages.pretraining.config import PretrainParams
from stages.training.checkpoint import load_state, save_state
from stages.training.optimizer import muon, weight_average

CLIP_NORM = 1.0


def pretrain(sam: Sam, params: PretrainParams, snapshot: Path) -> nn.Module:
    """Train `sam` in place on the first steps x batch_size prompts; returns its weight average (EMA).

    The file `snapshot` is written every `snapshot_every` steps, after printing the score, and at the end. A later call
    with the same parameters and code resumes from it, and returns at once if the training is finished.
    """
    average, optimizer = weight_average(sam, params.ema_decay), optimizer_of(sam, params)
    parts = {"network": sam, "average": average.module, "optimizer": optimizer}
    full_lr = [group["lr"] for group in optimizer.param_groups]
    first = _resume(snapshot, _identity(params), parts)
    if first:
        print(f"pretrain: resuming from step {first} ({snapshot})")
    numbers = range(first * params.batch_size, params.steps * params.batch_size)
    prompts = embedded_teacher.Prompts(params.seed)
    loader = DataLoader(prompts, params.batch_size, sampler=numbers, num_workers=params.workers)
    bar = progress(loader, "pretrain", "step", total=params.steps, done=first)
    for step, batch in enumerate(bar, start=first):
        for group, lr in zip(optimizer.param_groups, full_lr, strict=True):
            group["lr"] = lr * schedule(step, params)
        loss = embedded_teacher.loss(sam, batch)
        sam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), CLIP_NORM)
        optimizer.step()
        done = step + 1
        average.update(sam, step=done)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if done % params.snapshot_every == 0 and done < params.steps:
            bar.write(f"pretrain: step {done}: {embedded_teacher.held_out(average.module, params.held_out)}")
        if done % params.snapshot_every == 0 or done == params.steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            save_state(snapshot, {"identity": _identity(params), "step": done, **state})
    return average.module


def optimizer_of(sam: Sam, params: PretrainParams) -> Muon:
    """Muon for the weights of linear layers in the encoder's blocks and the decoder's transformer, else AdamW."""
    blocks = (sam.image_encoder.blocks, sam.mask_decoder.transformer)
    linear = {id(part.weight) for block in blocks for part in block.modules() if isinstance(part, nn.Linear)}
    parameters = list(sam.parameters())
    rest = [parameter for parameter in parameters if id(parameter) not in linear]
    return muon(parameters, rest, params.muon_lr, params.weight_decay, adamw_lr=params.lr)


def schedule(step: int, params: PretrainParams) -> float:
    """Factor on the learning rate: rises linearly over the warm-up and falls by a cosine to 0."""
    return min((step + 1) / params.warmup_steps, 0.5 + 0.5 * math.cos(math.pi * step / params.steps))


def _identity(params: PretrainParams) -> str:
    """What a snapshot and a training that resumes from it must have in common: parameters, code, version of torch."""
    return f"{params.model_dump_json()} {code_fingerprint()} torch {torch.__version__}"


def _resume(snapshot: Path, identity: str, parts: dict) -> int:
    """Load `snapshot` into `parts`. Returns the number of steps done; 0 where there is no snapshot of this training."""
    state = load_state(snapshot)
    if state is None:
        return 0
    if state["identity"] != identity:
        print(f"{snapshot}: of other parameters or other code, starting over")
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
