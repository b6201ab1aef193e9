"""SAM as the teacher: `segment_anything`'s own modules, built from a configuration, of official size or embedded.

The proposals are those of `SamPredictor.predict(box=...)` on the window, box by box: equal where images are encoded in
float32, close where they are in bfloat16, which is faster on some devices (float16 overflows in ViT-H). All else is
float32, for a box loses its place otherwise.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, resize, to_pil_image

from stages.common.errors import UserError, lacks_memory
from stages.common.files import write_weights
from stages.common.params import parse, read_json
from stages.compute.device import autocast
from stages.teacher.image_encoders import (
    AnySamConfig,
    Embedding,
    LiteEncoder,
    LiteSamConfig,
    MobileSamConfig,
    SamConfig,
    TinyVit,
    image_encoder,
)
from stages.teacher.promptable import Proposals
from stages.teacher.windows import InputFrame, input_size_hw, whole_window


class EarlyMaskDecoder(MaskDecoder):
    """SAM's, with the early map of a `LiteEncoder` mixed into the features of the masks."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        width = self.transformer_dim // 8
        self.mix = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.GELU(), nn.Conv2d(2 * width, width, 3, padding=1)
        )

    def mixed(self, upscaled: Tensor, early: Tensor) -> Tensor:
        """The sum of both maps, each (N, D / 8, 4 H, 4 W), plus two convolutions of it; the same shape."""
        total = upscaled + early
        return total + self.mix(total)


def build_sam(config: AnySamConfig) -> Sam:
    """An untrained Sam of the official classes, assembled as by segment_anything's own builders."""
    grid = config.image_size // config.patch_size
    encoder = image_encoder(config)
    prompts = PromptEncoder(
        embed_dim=config.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(config.image_size, config.image_size),
        mask_in_chans=config.mask_in_chans,
    )
    decoder = (EarlyMaskDecoder if isinstance(config, LiteSamConfig) else MaskDecoder)(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=config.prompt_dim,
            mlp_dim=config.decoder_mlp_dim,
            num_heads=config.decoder_heads,
        ),
        transformer_dim=config.prompt_dim,
        iou_head_depth=config.iou_head_depth,
        iou_head_hidden_dim=config.iou_head_dim,
    )
    return Sam(encoder, prompts, decoder, config.pixel_mean, config.pixel_std)


def load_sam(folder: Path) -> tuple[Sam, AnySamConfig]:
    """The Sam of a folder of weights and its configuration: float32, for inference, on the CPU.

    Raises UserError when the folder is not readable, or its weights do not fit its configuration.
    """
    path = folder / "config.json"
    try:
        values = read_json(path, "expected that of a teacher")
        kind = MobileSamConfig if "embed_dims" in values else LiteSamConfig if "blocks" in values else SamConfig
        config = parse(kind, values, where=str(path))
        weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        sam = build_sam(config)
        sam.load_state_dict(weights)
    except Exception as error:
        # numbers that do not fit together raise nearly anything in these networks
        if isinstance(error, UserError) or lacks_memory(error):
            raise
        raise UserError(f"{folder}: not a readable teacher: {' '.join(str(error).split())[:300]}") from None
    return sam.eval().requires_grad_(False), config


def save_sam(folder: Path, sam: Sam, config: AnySamConfig, dtype: torch.dtype = torch.float32) -> None:
    """Write `model.safetensors` (in `dtype`) and `config.json` to the folder, atomically."""
    weights = {key: value.to(dtype).contiguous() for key, value in sorted(sam.state_dict().items())}
    write_weights(folder, weights, config)


CPU_PIXELS = 4 * 192**2
"""Most pixels of network input that a CPU encodes at once."""


class SamTeacher:
    """A Sam as `stages.teacher.promptable.Teacher`."""

    def __init__(self, sam: Sam) -> None:
        self.sam, self.device = sam, sam.device
        timm = ["timm"] if isinstance(sam.image_encoder, TinyVit | LiteEncoder) else []
        self.libraries = ("segment-anything", "torchvision", *timm)
        self.frame = InputFrame(sam.image_encoder.img_size, "pad")

    def encode(self, windows: Sequence[np.ndarray]) -> Embedding:
        """The embedding of N windows, each (h, w, 3) uint8 RGB."""
        # as by segment_anything's ResizeLongestSide, but for windows so long that it leaves no row or column
        sizes_hw = [input_size_hw(whole_window(one.shape[:2]), self.frame) for one in windows]
        resized = [resize(to_pil_image(one), size_hw) for one, size_hw in zip(windows, sizes_hw, strict=True)]
        inputs = torch.stack([self.sam.preprocess(pil_to_tensor(one).to(self.device)) for one in resized])
        # on a CPU a batch of large inputs gains nothing, and needs their memory
        at_once = max(1, CPU_PIXELS // self.frame.side_px**2) if self.device.type == "cpu" else len(inputs)
        with autocast(self.device):
            found = [embed(self.sam, part) for part in inputs.split(at_once)]
        return Embedding(*(None if each[0] is None else torch.cat(each).float() for each in zip(*found, strict=True)))

    def decode(self, embeddings: Embedding, boxes_xyxy: np.ndarray) -> Proposals:
        """Proposals for `boxes_xyxy` (N, 4), in pixels of the input. `embeddings`: of N windows, or of one for all."""
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32, device=self.device)
        logits, predicted_iou = propose(self.sam, embeddings, boxes)
        return Proposals(logits.cpu(), predicted_iou.cpu())


def embed(sam: Sam, inputs: Tensor) -> Embedding:
    """The embedding of `inputs` (N, 3, S, S), normalised and padded."""
    found = sam.image_encoder(inputs)
    return found if isinstance(found, Embedding) else Embedding(found)


def propose(sam: Sam, embedding: Embedding, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, 4, h, w) and predicted IoU (N, 4) for `boxes_xyxy` (N, 4) in pixels of the input.

    `embedding`: of N images, one per box, or of a single image for all boxes.

    Replaces `MaskDecoder.predict_masks`, which repeats every image for every prompt: it would decode N prompts on N
    images N x N times.
    """
    decoder, count = sam.mask_decoder, len(boxes_xyxy)
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes_xyxy, masks=None)
    positions = sam.prompt_encoder.get_dense_pe().expand(count, -1, -1, -1)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(count, -1, -1)
    image = embedding.image + dense
    hidden, image_out = decoder.transformer(image, positions, torch.cat([own, sparse], dim=1))
    upscaled = decoder.output_upscaling(image_out.transpose(1, 2).reshape(image.shape))
    if embedding.early is not None:
        upscaled = decoder.mixed(upscaled, embedding.early)
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens].unbind(dim=1)
    filters = [mlp(token) for mlp, token in zip(decoder.output_hypernetworks_mlps, mask_tokens, strict=True)]
    logits = torch.einsum("nmc,nchw->nmhw", torch.stack(filters, dim=1), upscaled)
    return logits, decoder.iou_prediction_head(hidden[:, 0])
