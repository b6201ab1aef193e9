"""Weights of the classes in the loss, from how often each is seen in training samples."""

import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.data.tables import IGNORE
from stages.losses.config import ClassWeights
from stages.training.samples import Samples

FREQUENCY_SAMPLES = 512
"""Samples whose labels are counted for the class weights and the heads' initial bias."""


def class_frequency(samples: Samples, classes: int) -> Tensor:
    """(classes,) float64 share of each label in the first samples, without ignored pixels; no share is 0."""
    counts = torch.ones(classes, dtype=torch.float64)  # a class that no sample shows still gets a finite weight
    for number in range(FREQUENCY_SAMPLES):
        labels = samples.labels(number)
        counts += torch.bincount(labels[labels != IGNORE], minlength=classes)
    return counts / counts.sum()


def weights_of(wanted: ClassWeights, frequency: Tensor) -> Tensor:
    """(K+1,) class weights: the fixed ones, or computed from `frequency` (K+1,) and scaled to a mean of 1 over pixels.

    Background and defects as a whole weigh 1 / frequency^(1/8): a mild root, because samples around boxes already show
    more defects than images do. The defect classes divide the weight of defects so that each counts the same over all
    pixels; otherwise every defect would be predicted as the most common class. Raises UserError when the number of
    fixed weights is not K+1.
    """
    if wanted == "frequency":
        defects = frequency[1:].sum()
        relative = defects / (len(frequency) - 1) / frequency[1:]
        weights = torch.cat([frequency[:1] ** -0.125, defects**-0.125 * relative])
        return (weights / (weights * frequency).sum()).float()
    if len(wanted) != len(frequency):
        raise UserError(
            f"loss.class_weights = {wanted}: needs {len(frequency)} numbers "
            f"(background and {len(frequency) - 1} classes), or `frequency`"
        )
    return torch.tensor(wanted)
