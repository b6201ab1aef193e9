"""Install backbone weights by name: DINOv2 vision transformers in timm's layout, as safetensors with config.json.

The arguments of timm's `VisionTransformer` are derived from the shapes of the weights, so that later stages load a
checkpoint without a model hub, and an unsuitable one is refused here. Only safetensors are opened, never a pickle.
"""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from stages.checkpoints.fetch import copy_folder, fetch
from stages.common.errors import UserError
from stages.common.files import new_folder, sha256_file
from stages.student import efficientnet_lite0
from stages.student.backbone import build_backbone, load_backbone, read_backbone_config
from stages.student.config import BackboneConfig

TAPS = [1, 2, 4, 7]
"""Blocks whose output the student reads, counted from 0 (as in the Boxes2Pixels paper)."""

PYRAMID_PX = 128
"""Input side that a convolutional backbone is checked with; it takes any."""

HEAD_CHANNELS = 64
"""Channels per attention head in every DINOv2 ViT; the shapes of the weights do not determine it."""

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Input normalisation of every DINOv2 model, RGB in [0, 1]."""

SHA256 = {
    "vit_small_patch14_dinov2.lvd142m": "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
    "vit_base_patch14_dinov2.lvd142m": "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
}
"""Of the hub's model.safetensors, by timm name. The files of other names are not verified."""


def install_backbone(name: str, embedded: Path, cache: Path, out: Path) -> None:
    """Write the backbone that `weights.backbone` names to the folder `out`. Raises UserError for an unknown name."""
    if name == "embedded" or Path(name).is_dir():
        folder = embedded if name == "embedded" else Path(name)
        load_backbone(folder, read_backbone_config(folder).img_size)
        copy_folder(folder, out)
    elif name == "efficientnet_lite0":
        weights = efficientnet_lite0.load_weights()
        statistics = (efficientnet_lite0.MEAN, efficientnet_lite0.STD)
        write_pyramid(weights, efficientnet_lite0.TIMM_NAME, statistics, f"sha256 {efficientnet_lite0.SHA256}", out)
    elif Path(name).is_file():
        convert(Path(name), Path(name).stem, out)
    elif (entry := timm.models.get_pretrained_cfg(name)) is not None and entry.hf_hub_id:
        url = f"https://huggingface.co/{entry.hf_hub_id}/resolve/main/model.safetensors"
        offline = "Without a network: fetch it elsewhere and give the file as weights.backbone"
        convert(fetch(url, cache / f"{name}.safetensors", SHA256.get(name), offline), name, out)
    else:
        allowed = "embedded, efficientnet_lite0, a timm name, timm's .safetensors or a folder of weights"
        raise UserError(f"weights.backbone = {name!r}: no such file or folder; allowed are {allowed}")


def convert(path: Path, name: str, out: Path) -> None:
    """Convert a checkpoint in timm's layout to a folder of weights, at the checkpoint's own precision."""
    try:
        weights = {key: value for key, value in load_file(path).items() if not key.startswith("head.")}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
    kwargs = vit_kwargs({key: tuple(value.shape) for key, value in weights.items()}, str(path))
    config = BackboneConfig(
        name=name,
        timm_kwargs=kwargs,
        img_size=kwargs["img_size"],
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        taps=TAPS,
        source=f"sha256 {sha256_file(path)}",
    )
    with new_folder(out) as part:
        save_file(weights, part / "model.safetensors")
        (part / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_pyramid(
    weights: Mapping[str, Tensor], name: str, statistics: tuple[list[float], list[float]], source: str, out: Path
) -> None:
    """Write the first four feature levels from stride 4 on of the timm network `name` as a folder of weights."""
    levels = timm.create_model(name, pretrained=False, features_only=True).feature_info
    taps = [level for level, stride in zip(levels.out_indices, levels.reduction(), strict=True) if stride >= 4][:4]
    if len(taps) < 4:
        raise UserError(f"weights.backbone = {name!r}: four feature levels from stride 4 on are needed")
    config = BackboneConfig(
        name=name,
        family="pyramid",
        timm_kwargs={"model_name": name},
        img_size=PYRAMID_PX,
        mean=statistics[0],
        std=statistics[1],
        taps=taps,
        source=source,
    )
    wanted = build_backbone(config, PYRAMID_PX).net.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise UserError(f"weights.backbone = {name!r}: the checkpoint lacks {missing[0]}, which its features need")
    with new_folder(out) as part:
        save_file({key: weights[key].contiguous() for key in wanted}, part / "model.safetensors")
        (part / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def vit_kwargs(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, int | float | bool | str]:
    """Arguments of timm's VisionTransformer that build a network with exactly these weights.

    `shapes`: key -> shape, as in a timm checkpoint without its head. Raises UserError, starting with `where`, unless
    they belong to a DINOv2 ViT with a plain MLP and enough blocks for `TAPS`.
    """
    needed = ("pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma", "blocks.0.mlp.fc1.weight")
    if missing := [key for key in needed if key not in shapes]:
        raise UserError(f"{where}: not a DINOv2 vision transformer in timm's layout: {missing[0]} is missing")
    width, _, patch_px, _ = shapes["patch_embed.proj.weight"]
    tokens = shapes["pos_embed"][1]
    no_embed_class = isqrt(tokens) ** 2 == tokens
    depth = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks."))
    if depth <= max(TAPS):
        raise UserError(f"{where}: {depth} blocks, at least {max(TAPS) + 1} are needed for taps {TAPS}")
    kwargs = {
        "img_size": isqrt(tokens if no_embed_class else tokens - 1) * patch_px,
        "patch_size": patch_px,
        "embed_dim": width,
        "depth": depth,
        "num_heads": max(width // HEAD_CHANNELS, 1),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / width,
        "init_values": 1.0e-5,
        "reg_tokens": shapes["reg_token"][1] if "reg_token" in shapes else 0,
        "no_embed_class": no_embed_class,
    }
    with torch.device("meta"):
        built = {
            key: tuple(value.shape) for key, value in VisionTransformer(**kwargs, num_classes=0).state_dict().items()
        }
    if different := sorted(key for key in built.keys() | shapes.keys() if built.get(key) != shapes.get(key)):
        key = different[0]
        raise UserError(
            f"{where}: not a DINOv2 vision transformer in timm's layout: {key} is {shapes.get(key, 'missing')}, "
            f"expected {built.get(key, 'no such key')}"
        )
    return kwargs
