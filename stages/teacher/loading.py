"""Load a teacher of any kind from a folder of weights."""

from pathlib import Path

import torch

from stages.common.params import check_digests
from stages.teacher.promptable import Teacher
from stages.teacher.sam import SamTeacher, load_sam
from stages.teacher.transformers_sam import family_of, load_transformers


def load_teacher(folder: Path, device: torch.device) -> Teacher:
    """The teacher in `folder`, for inference on `device`.

    Raises UserError where the folder is not readable or a package is missing.
    """
    check_digests(folder, "run the weights stage again")
    if name := family_of(folder / "config.json"):
        return load_transformers(folder, name).to(device)
    return SamTeacher(load_sam(folder)[0].to(device))
