"""The training loop: optimiser, schedule, clipping, EMA, validation against the SAM teacher, checkpoints."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from stages.common.errors import Stopped, UserError, held
from stages.common.progress import progress
from stages.compute.device import multiplies_in_bf16, spell_out_attention
from stages.losses.batch import Batch, Moment
from stages.losses.config import ClassWeights
from stages.losses.method import Method
from stages.losses.pixel import trusted_loss
from stages.student.segmenter import Logits, Segmenter
from stages.training.checkpoint import Pace, load_state, save_state
from stages.training.config import Plan, TrainParams
from stages.training.optimizer import muon, weight_average
from stages.training.samples import Samples, class_frequency, collate
from stages.training.state import Progress, Training

FREQUENCY_SAMPLES = 512
"""Samples whose labels are counted for the class weights and the heads' first bias."""


@dataclass(frozen=True)
class History:
    """Rows of the two curve tables: one per epoch, and one per validation."""

    epochs: list[dict[str, float]]
    validations: list[dict[str, float]]


def fit(
    student: Segmenter,
    samples: Samples,
    plan: Plan,
    method: Method,
    validate: Callable[[Segmenter], float],
    device: torch.device,
    checkpoint: Path | None = None,
    workers: int = 0,
) -> tuple[Segmenter, History]:
    """Train `student` on `samples` by `method`; returns the EMA weights of the best validation, and the curves.

    `validate` scores an EMA student in evaluation mode, higher is better. A killed training resumes from `checkpoint`,
    which must be of this very training, and ends at the same bits: sample i depends on (seed, i) alone, what a method
    draws on (seed, step), and what a network draws in a step (dropout, in some baselines) on torch's seed at the call
    and the step. The caller removes the file when the result is safe. `workers` processes load samples; with 0 this one
    does. Raises UserError when the loss is not finite.
    """
    train, steps_per_epoch = plan.train, math.ceil(len(samples.images) / plan.train.batch_size)
    steps = train.epochs * steps_per_epoch
    frequency = class_frequency(samples, len(student.config.names) + 1, FREQUENCY_SAMPLES)
    class_weights = weights_of(plan.class_weights, frequency).to(device)
    student.start_at(frequency)
    student = student.to(device).train()
    spell_out_attention(student, device)
    ema = weight_average(student, train.ema_decay)
    optimizer = optimizer_of(student, train)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    now, pace, seed = Progress(), Pace(), torch.initial_seed()
    training = Training(student, ema.module, optimizer, schedule, now, method.to(device))
    if checkpoint is not None and (state := load_state(checkpoint)):
        training.load(state)
        print(f"resuming at step {now.step} ({checkpoint})", file=sys.stderr)

    # one loader for the whole run: sample numbers continue from epoch to epoch, and its workers stay
    numbers = range(now.step * train.batch_size, steps * train.batch_size)
    batches = iter(DataLoader(samples, train.batch_size, sampler=numbers, num_workers=workers, collate_fn=collate))
    with progress((), "train", "step", total=steps, done=now.step) as bar, _saved_when_stopped(checkpoint, training):
        while True:
            epoch, steps_into_epoch = divmod(now.step, steps_per_epoch)
            if now.step and not steps_into_epoch and _is_due(epoch, now, train):
                score = validate(ema.module.eval())
                bar.set_postfix(loss=f"{now.epochs[-1]['loss']:.3f}", val_miou_anom=f"{score:.3f}")
                with held():
                    _judge(epoch, score, training)
            if now.step == steps or now.stale >= train.patience:
                break
            batch = next(batches)
            with held():
                torch.manual_seed(_mixed(seed, now.step))
                # a stream of its own: sample number `step` draws from (seed, step)
                draw = np.random.default_rng([samples.seed, now.step, 1])
                moment = Moment(now.step / steps, class_weights)
                shown = _step(training, batch.to(device), moment, draw, train.clip_norm)
                if not math.isfinite(shown["loss"]):
                    raise UserError(f"loss is {shown['loss']} at step {now.step}: lower train.lr (now {train.lr})")
                schedule.step()
                ema.update(student, step=now.step)
                _count(shown, now, steps_per_epoch, schedule.get_last_lr()[0])
            bar.update()
            if checkpoint is not None and pace.due():
                pace.save(checkpoint, training.state())
    student.load_state_dict({**student.state_dict(), **now.best})
    return student.cpu().eval(), History(now.epochs, now.validations)


def optimizer_of(student: Segmenter, train: TrainParams) -> Optimizer:
    """AdamW as published, or Muon but for the last maps, which have no more outputs than there are classes."""
    parameters = list(student.trainable().values())
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)
    classes = len(student.config.names) + 1
    last = [parameter for parameter in parameters if parameter.ndim > 1 and len(parameter) <= classes]
    return muon(parameters, last, train.lr, train.weight_decay)


def _mixed(seed: int, step: int) -> int:
    """A seed of the step's own."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _count(shown: dict[str, float], now: Progress, steps_per_epoch: int, lr: float) -> None:
    """One more step is done; after the last of an epoch its means become a row."""
    now.step += 1
    now.sums = {key: now.sums.get(key, 0.0) + value for key, value in shown.items()}
    epoch, steps_into_epoch = divmod(now.step, steps_per_epoch)
    if not steps_into_epoch:
        means = {key: value / steps_per_epoch for key, value in now.sums.items()}
        now.epochs.append({"epoch": epoch, **means, "lr": lr})
        now.sums = {}


def _is_due(epoch: int, now: Progress, train: TrainParams) -> bool:
    """Whether to validate after `epoch`: not where it was done before the checkpoint was written."""
    done = bool(now.validations) and now.validations[-1]["epoch"] == epoch
    return not done and (epoch % train.validate_every == 0 or epoch == train.epochs)


def _judge(epoch: int, score: float, training: Training) -> None:
    """Take up a validation's score; the weights of the best are kept."""
    now = training.now
    now.validations.append({"epoch": epoch, "val_miou_anom": score})
    if score > now.best_score:
        now.best_score, now.best, now.stale = score, copy.deepcopy(training.changing(training.average)), 0
    else:
        now.stale += 1


@contextmanager
def _saved_when_stopped(checkpoint: Path | None, training: Training) -> Iterator[None]:
    """Ctrl-C and SIGTERM come between steps (see `held`), so the state is one to resume from."""
    try:
        yield
    except Stopped:
        if checkpoint is not None:
            with held():
                save_state(checkpoint, training.state())
        raise


def weights_of(wanted: ClassWeights, frequency: Tensor) -> Tensor:
    """(K+1,) class weights: the fixed ones, or drawn from the frequency, scaled to a mean of 1 over pixels.

    Background and defects as a whole weigh 1 / frequency^(1/8): a mild root, because samples around boxes already show
    more defects than images do. Defect classes share the weight of defects so that each counts as much as any other, or
    the commonest would be the answer to all.
    """
    if wanted == "frequency":
        defects = frequency[1:].sum()
        which = defects / (len(frequency) - 1) / frequency[1:]
        weights = torch.cat([frequency[:1] ** -0.125, defects**-0.125 * which])
        return (weights / (weights * frequency).sum()).float()
    if len(wanted) != len(frequency):
        raise UserError(
            f"loss.class_weights = {wanted}: needs {len(frequency)} numbers "
            f"(background and {len(frequency) - 1} classes), or `frequency`"
        )
    return torch.tensor(wanted)


def _step(
    training: Training, batch: Batch, moment: Moment, draw: np.random.Generator, clip_norm: float
) -> dict[str, float]:
    """One optimiser step; returns the values for the curves."""
    student, method, optimizer = training.student, training.method, training.optimizer
    batch, ema = method.augment(batch, moment.progress, draw), None
    logits = logits_of(student, batch.image)
    if method.reads_ema:
        with torch.no_grad():
            ema = logits_of(training.average.eval(), batch.clean)
    named, shown = method.losses(logits, batch, moment, ema)
    if batch.trusted is not None and not method.reads_labels:
        weights = method.params.fine, method.params.binary
        named = named | {"trusted": trusted_loss(logits, batch, moment.class_weights, *weights)}
    loss = sum(named.values())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.trainable().values(), clip_norm)
    optimizer.step()
    values = {"loss": loss} | {f"loss_{name}": value for name, value in named.items()} | shown
    return {name: value.item() for name, value in values.items()}


def logits_of(student: Segmenter, images: Tensor) -> Logits:
    """float32 logits of both heads, computed in bfloat16 where that is faster."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=multiplies_in_bf16(images.device)):
        logits = student(images, with_binary=True)
    return Logits(*(part if part is None else part.float() for part in logits))
