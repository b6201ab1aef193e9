"""The training loop: AdamW, cosine, clipping, EMA, validation against the noisy teacher, early stopping."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from stages.shell.errors import UserError
from stages.shell.progress import progress
from stages.student.model import Student
from stages.supervision.boxes2pixels import losses
from stages.supervision.config import LossParams
from stages.training.config import Plan
from stages.training.crops import Crops, Sample, class_frequency

FREQUENCY_SAMPLES = 512
"""Samples whose labels are counted for the class weights and the heads' first bias."""


@dataclass(frozen=True)
class History:
    """Rows of the two curve tables: one an epoch, and one a validation."""

    epochs: list[dict[str, float]]
    validations: list[dict[str, float]]


def fit(
    student: Student, crops: Crops, plan: Plan, validate: Callable[[Student], float], device: torch.device
) -> tuple[Student, History]:
    """Train `student` on `crops`; returns the EMA weights of the best validation, and the curves.

    `validate` scores an EMA student in evaluation mode, higher is better.
    Raises UserError when the loss is not finite.
    """
    train, steps_per_epoch = plan.train, math.ceil(len(crops.photos) / plan.train.batch_size)
    steps = train.epochs * steps_per_epoch
    frequency = class_frequency(crops, len(student.config.names) + 1, FREQUENCY_SAMPLES)
    class_weights = weights_of(plan.loss, frequency).to(device)
    student.fine.start_at(frequency.log().float())
    if student.binary is not None:
        student.binary.start_at(torch.stack([frequency[0], frequency[1:].sum()]).log().float())
    student = student.to(device).train()
    ema = ModelEmaV3(student, decay=train.ema_decay, use_warmup=True, warmup_power=0.8)
    optimizer = torch.optim.AdamW(student.trainable().values(), lr=train.lr, weight_decay=train.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    history, best_score, best, stale = History([], []), -math.inf, None, 0
    sums: dict[str, float] = {}
    # one loader for the whole run: sample numbers go on from epoch to epoch, and its workers stay
    numbers = range(steps * train.batch_size)
    loader = DataLoader(crops, train.batch_size, sampler=numbers, num_workers=train.workers)
    for step, batch in enumerate(bar := progress(loader, "train", "step", total=steps)):
        tau = plan.selfcorr.tau if plan.selfcorr and step >= plan.selfcorr.warmup * steps else None
        figures = _step(student, batch, class_weights, plan.loss, tau, optimizer, train.clip_norm, device)
        if not math.isfinite(figures["loss"]):
            raise UserError(f"loss is {figures['loss']} at step {step}: lower train.lr (now {train.lr})")
        schedule.step()
        ema.update(student, step=step)
        sums = {key: sums.get(key, 0.0) + value for key, value in figures.items()}
        epoch, steps_into_epoch = divmod(step + 1, steps_per_epoch)
        if steps_into_epoch:
            continue
        means = {key: value / steps_per_epoch for key, value in sums.items()}
        history.epochs.append({"epoch": epoch, **means, "lr": schedule.get_last_lr()[0]})
        sums = {}
        if epoch % train.validate_every and epoch < train.epochs:
            continue
        score = validate(ema.module.eval())
        bar.set_postfix(loss=f"{means['loss']:.3f}", val_miou_anom=f"{score:.3f}")
        history.validations.append({"epoch": epoch, "val_miou_anom": score})
        if score > best_score:
            best_score, best, stale = score, copy.deepcopy(ema.module.state_dict()), 0
        elif (stale := stale + 1) >= train.patience:
            break
    student.load_state_dict(best)
    return student.cpu().eval(), history


def weights_of(params: LossParams, frequency: Tensor) -> Tensor:
    """(K+1,) class weights: the fixed ones, or drawn from the frequency, scaled to a mean of 1 over pixels.

    Whether: background and defects as a whole weigh 1 / frequency^(1/4). No weights teach `background` everywhere,
    1 / frequency teaches defects everywhere; samples around boxes already show more defects than photographs do, and
    with the square root on top three of four predicted pixels were wrong. Which: defect classes share the weight of
    defects so that each counts as much as any other, or the commonest would be the answer to all.
    """
    if params.class_weights == "frequency":
        defects = frequency[1:].sum()
        which = defects / (len(frequency) - 1) / frequency[1:]
        weights = torch.cat([frequency[:1] ** -0.25, defects**-0.25 * which])
        return (weights / (weights * frequency).sum()).float()
    if len(params.class_weights) != len(frequency):
        raise UserError(
            f"loss.class_weights = {params.class_weights}: needs {len(frequency)} numbers "
            f"(background and {len(frequency) - 1} classes), or `frequency`"
        )
    return torch.tensor(params.class_weights)


def _step(
    student: Student,
    batch: Sample,
    class_weights: Tensor,
    loss_params: LossParams,
    tau: float | None,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    device: torch.device,
) -> dict[str, float]:
    """One optimiser step; returns the figures to log."""
    images, labels = batch.image.to(device), batch.labels.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = student(images, with_binary=True)
    logits = type(logits)(*(part if part is None else part.float() for part in logits))
    named, corrected = losses(logits, labels, class_weights, loss_params, tau)
    loss = sum(named.values())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.trainable().values(), clip_norm)
    optimizer.step()
    return {
        "loss": loss.item(),
        **{f"loss_{name}": value.item() for name, value in named.items()},
        "corrected_share": corrected.item(),
    }
