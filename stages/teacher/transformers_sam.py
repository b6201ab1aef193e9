"""Promptable networks of Hugging Face `transformers` as teachers: SAM 2.1, SAM-HQ, SlimSAM, EdgeTAM, SAM 3's tracker.

They share one forward pass. Their processors are not used: these refuse images with different numbers of boxes. The
package is optional: `uv pip install --group transformers`. Precision as in `stages.teacher.sam`.

Predicted IoUs of SAM and SAM-HQ are not limited to 1, those of the others pass a sigmoid. SAM-HQ predicts them for the
masks of SAM's own tokens, but returns the sum of their logits and those of its high-quality token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import resize

from stages.common.errors import UserError
from stages.common.params import read_json
from stages.compute.device import autocast
from stages.data.boxes import Window
from stages.teacher.promptable import Proposals
from stages.teacher.windows import InputFrame, input_size_hw

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3


class Family(NamedTuple):
    """A class of `transformers`, how a window is resized to its input, and the mean and standard deviation of RGB."""

    model: str
    resize: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]


FAMILIES = {
    "sam": Family("SamModel", "pad", IMAGENET),
    "sam_hq": Family("SamHQModel", "pad", IMAGENET),
    "sam2": Family("Sam2Model", "stretch", IMAGENET),
    "edgetam": Family("EdgeTamModel", "stretch", IMAGENET),
    "sam3": Family("Sam3TrackerModel", "stretch", HALF),
}
"""By `model_type` in config.json, without the suffixes `_video` and `_tracker` that files of the hub may have."""


def family_of(config: Path) -> str | None:
    """The key in FAMILIES for a `config.json`; None where it is not one of `transformers`.

    Raises UserError where it is unreadable, or of a model that cannot be prompted.
    """
    kind = read_json(config, "expected the configuration of a teacher").get("model_type")
    if kind is None:
        return None
    name = str(kind).removesuffix("_video").removesuffix("_tracker")
    if name not in FAMILIES:
        raise UserError(f"{config}: model_type {kind!r} is no teacher; allowed are {', '.join(FAMILIES)}")
    return name


def load_transformers(folder: Path, name: str) -> "TransformersTeacher":
    """The teacher of the family `name` in a folder of config.json and model.safetensors: float32, for inference, on
    the CPU.

    Nothing is downloaded and no pickle is opened. Raises UserError where the folder lacks a weight, the model gives
    another number of masks, or `transformers` is not installed.
    """
    try:
        import transformers  # optional: only these teachers need it
    except ImportError:
        raise UserError(
            f"{folder}: a {name} teacher needs transformers: uv pip install --group transformers, or take another "
            "weights.teacher"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, loaded = getattr(transformers, FAMILIES[name].model).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # otherwise only a log names them; refused below
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: not a readable teacher: {' '.join(str(error).split())[:300]}") from None
    if lacking := sorted([*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])]):
        kind = type(model).__name__
        raise UserError(
            f"{folder}: {len(lacking)} tensors of {kind} are missing or of another shape, first {lacking[0]}"
        )
    if (masks := model.config.mask_decoder_config.num_multimask_outputs) != 3:
        raise UserError(f"{folder / 'config.json'}: num_multimask_outputs = {masks}; allowed is 3")
    return TransformersTeacher(model.eval().requires_grad_(False), FAMILIES[name])


class TransformersTeacher:
    """A model of `transformers` as `stages.teacher.promptable.Teacher`."""

    libraries = ("torchvision", "transformers")

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family = model, family
        side = model.config.prompt_encoder_config.image_size
        self.frame = InputFrame(side if isinstance(side, int) else side[0], family.resize)
        if hasattr(model.mask_decoder, "dynamic_multimask_via_stability"):
            # otherwise the best of the three masks would replace the single one where that is not stable
            model.mask_decoder.dynamic_multimask_via_stability = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    def to(self, device: torch.device) -> "TransformersTeacher":
        """Move the model to `device`."""
        self.model.to(device)
        return self

    def encode(self, windows: Sequence[np.ndarray]) -> list[list[Tensor]]:
        """N windows, (h, w, 3) uint8 RGB -> maps (1, C, H, W) of each: the embedding, and others if the decoder reads
        some."""
        return [self._maps(self._pixels(window)) for window in windows]

    def decode(self, embeddings: list[list[Tensor]], boxes_xyxy: np.ndarray) -> Proposals:
        """Proposals for `boxes_xyxy` (N, 4), in pixels of the input. `embeddings`: of N windows, or of one for all."""
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32, device=self.device)
        shared = len(embeddings) == 1
        maps = [torch.cat(level) for level in zip(*embeddings, strict=True)]
        prompts = boxes[None] if shared else boxes[:, None]
        answers = [self._forward(maps, prompts, many) for many in (False, True)]
        logits = torch.cat([answer.pred_masks for answer in answers], dim=2).flatten(0, 1)
        predicted_iou = torch.cat([answer.iou_scores for answer in answers], dim=2).flatten(0, 1)
        return Proposals(logits.cpu(), predicted_iou.cpu())

    def _pixels(self, window: np.ndarray) -> Tensor:
        """(1, 3, S, S): resized, normalised, padded with zeros on the right or below."""
        height, width = window.shape[:2]
        pixels = torch.tensor(window, device=self.device).permute(2, 0, 1)
        size = list(input_size_hw(Window(0, 0, width, height), self.frame))
        mean, std = (torch.tensor(part, device=self.device)[:, None, None] for part in self.family.normalisation)
        inputs = (resize(pixels, size, antialias=True).float() / 255 - mean) / std
        return nn.functional.pad(inputs, (0, self.frame.side_px - size[1], 0, self.frame.side_px - size[0]))[None]

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        with autocast(self.device):
            found = self.model.get_image_embeddings(pixels)
        if isinstance(found, Tensor):
            found = [found]
        # SAM-HQ: the embedding and a tuple of maps from within the encoder; the others: three maps, the finest first
        maps = [found[0], *found[1]] if self.family is FAMILIES["sam_hq"] else found
        return [one.float() for one in maps]

    def _forward(self, maps: list[Tensor], boxes: Tensor, many: bool):
        if self.family is FAMILIES["sam_hq"]:
            kwargs = {"image_embeddings": maps[0], "intermediate_embeddings": maps[1:]}
        else:
            kwargs = {"image_embeddings": maps[0] if self.family is FAMILIES["sam"] else maps}
        return self.model(input_boxes=boxes, multimask_output=many, **kwargs)
