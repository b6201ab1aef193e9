"""Install backbone weights by name: networks of timm, as safetensors with config.json. Pickles are never opened.

timm builds the network of a name and maps the checkpoint's keys onto it; later stages rebuild it from the name alone,
without a model hub.
"""

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.checkpoints.fetch import copy_folder, fetch
from stages.common.errors import UserError
from stages.common.files import sha256_file, write_weights
from stages.student import efficientnet_lite0
from stages.student.backbone import build_backbone, check_taps, load_backbone, read_backbone_config
from stages.student.config import BackboneConfig

TAPS = [1, 2, 4, 7]
"""Blocks of a ViT whose output the student reads, counted from 0 (as in the Boxes2Pixels paper)."""

PYRAMID_PX = 128
"""Input side with which a backbone of several strides is checked, unless it was published for one size alone."""

SHA256 = {
    "vit_small_patch14_dinov2.lvd142m": "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
    "vit_base_patch14_dinov2.lvd142m": "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
}
"""Of the hub's model.safetensors, by timm name. The files of other names are not verified."""


def install_backbone(name: str, cache: Path, out: Path) -> None:
    """Write the backbone that `weights.backbone` names to the folder `out`. Raises UserError for an unknown name."""
    if Path(name).is_dir():
        load_backbone(Path(name), read_backbone_config(Path(name)).img_size)
        copy_folder(Path(name), out)
    elif name == "efficientnet_lite0":
        statistics = {"mean": efficientnet_lite0.MEAN, "std": efficientnet_lite0.STD}
        source = f"sha256 {efficientnet_lite0.SHA256}"
        config = config_of(efficientnet_lite0.TIMM_NAME, source).model_copy(update=statistics)
        write(config, efficientnet_lite0.load_weights(), out)
    elif Path(name).is_file():
        convert(Path(name), Path(name).stem, out)
    elif (entry := timm.models.get_pretrained_cfg(name)) is not None and entry.hf_hub_id:
        url = f"https://huggingface.co/{entry.hf_hub_id}/resolve/main/model.safetensors"
        offline = (
            "Without a network: fetch it elsewhere and give the file, called NAME.safetensors, as weights.backbone"
        )
        convert(fetch(url, cache / f"{name}.safetensors", SHA256.get(name), offline), name, out)
    else:
        allowed = "efficientnet_lite0, a timm name, timm's NAME.safetensors or a folder of weights"
        raise UserError(f"weights.backbone = {name!r}: no such file or folder; allowed are {allowed}")


def convert(path: Path, name: str, out: Path) -> None:
    """Write the checkpoint `path` of the timm network `name` to the folder `out`, in timm's own precision.

    Raises UserError where the file is not safetensors, the name is unknown, or the weights are of another network.
    """
    try:
        with safe_open(path, "pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
    config = config_of(name, f"sha256 {sha256_file(path)}")
    try:
        # with the published classifier timm requires every key; without it timm would ignore any difference
        kwargs = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "hf_hub_id": None}}
        network = timm.create_model(name, **kwargs)
        if config.family == "pyramid":  # its keys differ from those of the whole network
            network = timm.create_model(name, features_only=True, out_indices=tuple(config.taps), **kwargs)
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not the weights of {name}: {' '.join(str(error).split())[:300]}") from None
    write(config, network.state_dict(), out)


def config_of(name: str, source: str) -> BackboneConfig:
    """The configuration that rebuilds the timm network `name`. Raises UserError for an unknown name, and for a network
    without four feature maps that the student can read."""
    if not timm.is_model(name):
        raise UserError(
            f"weights.backbone: {name!r} is no name of timm's; a file is called after it, such as "
            "vit_small_patch14_dinov2.lvd142m.safetensors"
        )
    published = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
        vit = hasattr(network, "blocks") and hasattr(network, "patch_embed") and hasattr(network, "set_input_size")
        levels = None if vit else timm.create_model(name, features_only=True).feature_info
    if vit:
        family, taps, size_px = "vit", TAPS, network.patch_embed.img_size[0]
        enough = len(network.blocks) > max(TAPS)
    else:
        # the first four of those from stride 4 on
        taps = [at for at, stride in zip(levels.out_indices, levels.reduction(), strict=True) if stride >= 4][:4]
        size_px = published.input_size[-1] if published.fixed_input_size else PYRAMID_PX
        family, enough = "pyramid", len(taps) == 4
    if not enough:
        raise UserError(
            f"weights.backbone = {name!r}: needed are {max(TAPS) + 1} blocks of a vision transformer, or four feature "
            "levels from stride 4 on"
        )
    return BackboneConfig(
        name=name,
        family=family,
        timm_kwargs={"model_name": name},
        img_size=size_px,
        mean=list(published.mean),
        std=list(published.std),
        taps=taps,
        source=source,
    )


def write(config: BackboneConfig, weights: dict[str, Tensor], out: Path) -> None:
    """Write a folder of weights with those that the taps of `config` need; all others are left out.

    Raises UserError where the network's maps are not what the student's decoder reads.
    """
    backbone = build_backbone(config, config.img_size)
    (inner,) = backbone.children()
    wanted = inner.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise UserError(f"weights.backbone = {config.name!r}: the checkpoint lacks {missing[0]}, which its taps need")
    check_taps(backbone, config.img_size, f"weights.backbone = {config.name!r}")
    write_weights(out, {key: weights[key].contiguous() for key in wanted}, config)
