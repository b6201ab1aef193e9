"""The training loop: optimiser, schedule, clipping, EMA, validation against the SAM teacher, checkpoints."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from stages.common.errors import Stopped, UserError, held
from stages.common.progress import progress
from stages.compute.device import prefer_fast_kernels
from stages.losses.batch import Moment
from stages.losses.method import Method
from stages.student.segmenter import Segmenter
from stages.training.checkpoint import Pace, load_state, save_state
from stages.training.class_weights import class_frequency, weights_of
from stages.training.config import Plan, TrainParams
from stages.training.micro_batches import average_gradients
from stages.training.optimizer import muon, weight_average
from stages.training.processes import ALONE, Processes
from stages.training.samples import Samples, collate
from stages.training.state import Position, Training


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
    validate: Callable[[Segmenter], dict[str, float]],
    device: torch.device,
    checkpoint: Path | None = None,
    workers: int = 0,
    processes: Processes = ALONE,
) -> tuple[Segmenter, History]:
    """Train `student` on `samples` by `method`; returns the EMA weights of the best validation, and the curves.

    `validate` takes the EMA student in evaluation mode and returns the columns of a row of `validations`; among them is
    the score, `val_miou_anom`, higher is better. `workers` processes load samples; with 0 this one does.

    A killed training resumes from `checkpoint` and ends at the same bits: sample i depends only on (seed, i), the
    random numbers of a method on (seed, step, micro-batch), and those of a network (dropout, in some baselines) on
    torch's seed at the call, step and micro-batch. The caller removes the file once the result is saved.

    All `processes` make the same call and share the micro-batches; the result has the same bits for any number of
    processes. Only the first one reads and writes `checkpoint`.

    Raises UserError when the loss is not finite, or `checkpoint` is of another training.
    """
    train, steps_per_epoch = plan.train, math.ceil(len(samples.images) / plan.train.batch_size)
    epochs = max(train.epochs, math.ceil(train.min_steps / steps_per_epoch))
    steps = epochs * steps_per_epoch
    frequency = class_frequency(samples, len(student.config.names) + 1)
    class_weights = weights_of(plan.class_weights, frequency).to(device)
    student.start_at(frequency)
    student = student.to(device).train()
    prefer_fast_kernels(student, device)
    ema = weight_average(student, train.ema_decay)
    optimizer = optimizer_of(student, train)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    now, pace, seed = Position(), Pace(), torch.initial_seed()
    training = Training(student, ema.module, optimizer, schedule, now, method.to(device))
    first = processes.rank == 0
    if checkpoint is not None and (state := processes.of_first(lambda: load_state(checkpoint))):
        try:
            training.load(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{checkpoint}: not of this training ({reason}); remove it") from None
        if first:
            print(f"resuming at step {now.step} ({checkpoint})", file=sys.stderr)

    # one loader for the whole run: sample numbers continue from epoch to epoch, and its workers keep running
    size, own = train.batch_size // train.micro_batches, processes.share(train.micro_batches)
    own_samples = range(own.start * size, own.stop * size)
    numbers = (step * train.batch_size + i for step in range(now.step, steps) for i in own_samples)
    batches = iter(DataLoader(samples, size, sampler=numbers, num_workers=workers, collate_fn=collate))
    with (
        # several processes must all stop at the same step
        held(processes.arrived) if processes.size > 1 else nullcontext(),
        progress((), "train", "step", total=steps, done=now.step, hidden=not first) as bar,
        _saved_when_stopped(checkpoint, training, processes),
    ):
        while True:
            epoch, steps_into_epoch = divmod(now.step, steps_per_epoch)
            if now.step and not steps_into_epoch and _is_due(epoch, epochs, now, train):
                scores = validate(ema.module.eval())
                bar.set_postfix(loss=f"{now.epochs[-1]['loss']:.3f}", val_miou_anom=f"{scores['val_miou_anom']:.3f}")
                with held():
                    _judge(epoch, scores, training)
            if now.step == steps or now.stale >= train.patience:
                break
            parts = [(number, next(batches)) for number in own]
            with held():
                moment, seeds = Moment(now.step / steps, class_weights), (seed, samples.seed)
                shown, signal = average_gradients(training, moment, seeds, parts, device, processes)
                if not math.isfinite(shown["loss"]):
                    raise UserError(f"loss is {shown['loss']} at step {now.step}: lower train.lr (now {train.lr})")
                torch.nn.utils.clip_grad_norm_(student.trainable().values(), train.clip_norm)
                optimizer.step()
                ema.update(student, step=now.step)
                _count(shown, now, steps_per_epoch, schedule.get_last_lr()[0])
                schedule.step()
            bar.update()
            if signal:
                raise Stopped(signal)
            if checkpoint is not None and first and pace.due():
                pace.save(checkpoint, training.state())
    student.load_state_dict({**student.state_dict(), **now.best})
    return student.cpu().eval(), History(now.epochs, now.validations)


def optimizer_of(student: Segmenter, train: TrainParams) -> Optimizer:
    """AdamW as published, or Muon, with AdamW for the last layer of each head."""
    parameters = list(student.trainable().values())
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)
    return muon(parameters, student.last_maps(), train.lr, train.weight_decay)


def _count(shown: dict[str, float], now: Position, steps_per_epoch: int, lr: float) -> None:
    """Count a step that was done at learning rate `lr`; at the end of an epoch its means become a row."""
    now.step += 1
    now.sums = {key: now.sums.get(key, 0.0) + value for key, value in shown.items()}
    epoch, steps_into_epoch = divmod(now.step, steps_per_epoch)
    if not steps_into_epoch:
        means = {key: value / steps_per_epoch for key, value in now.sums.items()}
        now.epochs.append({"epoch": epoch, **means, "lr": lr})
        now.sums = {}


def _is_due(epoch: int, epochs: int, now: Position, train: TrainParams) -> bool:
    """Whether to validate after `epoch`; False if that was done before the checkpoint was written."""
    done = bool(now.validations) and now.validations[-1]["epoch"] == epoch
    return not done and (epoch % train.validate_every == 0 or epoch == epochs)


def _judge(epoch: int, scores: dict[str, float], training: Training) -> None:
    """Record a validation, and keep its weights if they score best, or always if the method ignores val's score."""
    now, score = training.now, scores["val_miou_anom"]
    now.validations.append({"epoch": epoch, **scores})
    if score > now.best_score or not training.method.judged_by_masks():
        now.best_score, now.best, now.stale = score, copy.deepcopy(training.changing(training.average)), 0
    else:
        now.stale += 1


@contextmanager
def _saved_when_stopped(checkpoint: Path | None, training: Training, processes: Processes) -> Iterator[None]:
    """Save the state on Ctrl-C and SIGTERM: they arrive between steps (see `held`), so it is a state to resume from."""
    try:
        yield
    except Stopped:
        if checkpoint is not None:
            with held():
                processes.of_first(lambda: save_state(checkpoint, training.state()))
        raise
