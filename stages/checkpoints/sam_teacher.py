"""Install the SAM teacher's weights by name, as safetensors with config.json.

An official checkpoint is a pickle: it is opened only if its SHA-256 is one of the published ones, and then with
`weights_only=True`.
"""

import re
from pathlib import Path

import torch

from stages.checkpoints.fetch import copy_folder, fetch
from stages.checkpoints.hub_teacher import HUB, ORIGINAL_SHA256, install_from_hub
from stages.checkpoints.sam2_file import CONFIGS, convert_sam2
from stages.common.errors import UserError
from stages.common.files import sha256_file
from stages.teacher.image_encoders import OFFICIAL, MobileSamConfig
from stages.teacher.loading import load_teacher
from stages.teacher.sam import build_sam, save_sam

SHA256 = {
    "vit_b": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "vit_l": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "vit_h": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    "mobile_sam": "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
}
"""Of the official checkpoints, sam_<name>_<...>.pth and mobile_sam.pt."""


def install_teacher(name: str, embedded: Path, cache: Path, out: Path) -> None:
    """Write the teacher that `weights.teacher` names to the folder `out`. Raises UserError for an unknown name."""
    if name == "embedded" or Path(name).is_dir():
        folder = embedded if name == "embedded" else Path(name)
        load_teacher(folder, torch.device("cpu"))
        copy_folder(folder, out)
    elif name in OFFICIAL:
        url, digest = OFFICIAL[name].source, SHA256[name]
        offline = f"Without a network: fetch it elsewhere and give the file as weights.teacher (SHA-256 {digest})"
        convert(fetch(url, cache / url.rsplit("/", 1)[-1], digest, offline), name, out)
    elif name in HUB:
        install_from_hub(name, cache, out)
    elif Path(name).is_file():
        official = _official_name(Path(name))
        (convert_sam2 if official in CONFIGS else convert)(Path(name), official, out)
    else:
        allowed = f"embedded, {', '.join([*OFFICIAL, *HUB])}, an official .pth or .pt, or a folder of weights"
        raise UserError(f"weights.teacher = {name!r}: no such file or folder; allowed are {allowed}")


def convert(path: Path, name: str, out: Path) -> None:
    """Convert an official checkpoint, already verified, to a folder of weights at full precision."""
    config = OFFICIAL[name]
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(config, MobileSamConfig):
        state = {timm_key(key): value for key, value in state.items() if not re.match(CLASSIFIER, key)}
    sam = build_sam(config)
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: not a {name} checkpoint: {' '.join(str(error).split())[:300]}") from None
    save_sam(out, sam, config)


CLASSIFIER = r"image_encoder\.(norm_)?head\."
"""Keys of the classifier of MobileSAM's TinyViT, which Sam does not use."""


def timm_key(key: str) -> str:
    """The key in our Sam, whose TinyViT is timm's, of a tensor of mobile_sam.pt. Only the encoder's keys differ.

    A downsampling layer is the end of a stage in the file, but the start of the next stage in timm.
    """
    key = re.sub(r"\.patch_embed\.seq\.([02])\.", lambda found: f".patch_embed.conv{int(found[1]) // 2 + 1}.", key)
    key = re.sub(r"\.layers\.(\d)\.downsample\.", lambda found: f".stages.{int(found[1]) + 1}.downsample.", key)
    return re.sub(r"\.layers\.(\d)\.blocks\.", r".stages.\1.blocks.", key).replace(".c.weight", ".conv.weight")


def _official_name(path: Path) -> str:
    found = sha256_file(path)
    name = {digest: name for name, digest in SHA256.items()}.get(found) or ORIGINAL_SHA256.get(found)
    if name in OFFICIAL or name in CONFIGS:
        return name
    if name:
        raise UserError(
            f"{path}: not opened: the original file of {name}, in a layout that is not read. Set weights.teacher to "
            f"{name}, or to a folder with config.json and model.safetensors of huggingface.co/{HUB[name]}"
        )
    raise UserError(
        f"{path}: not opened: its SHA-256, {found}, is none of the official checkpoints' "
        f"({', '.join([*OFFICIAL, *CONFIGS])}). "
        "Other weights are taken as a folder with model.safetensors and config.json"
    )
