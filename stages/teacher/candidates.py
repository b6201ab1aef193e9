"""SAM on boxes: all four masks that its decoder has for a box prompt, with their scores.

The encoder runs once for all boxes that share a window (the whole image); else, on a CPU, for one window after the
other, and on a GPU for batches of them. The decoder runs once per batch of boxes. The modules and their weights are
`segment_anything`'s own, and the results equal `SamPredictor.predict(box=...)` on the window, box by box. fp32 on a
CPU, bfloat16 autocast on a GPU (plain fp16 breaks ViT-H).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from stages.data.boxes import Window
from stages.teacher.chunks import Chunks
from stages.teacher.windows import input_size_hw, to_view

SOURCES = ("single", "multi", "multi", "multi")
"""Where candidates 0 to 3 come from: SAM's token for an unambiguous prompt, and its three for ambiguous ones."""

STABILITY_OFFSET = 1.0
"""Logits by which the threshold is moved up and down to measure stability (the default of SAM's mask generator)."""


class Candidate(NamedTuple):
    """One mask for one box, and its scores. Outside what the encoder saw it has no pixel."""

    tight: Window  # the bounding box of its pixels; a window of no size where it has none
    mask: np.ndarray  # bool, native pixels, logit > 0: the part in `tight`
    predicted_iou: float  # SAM's own estimate, not clamped
    stability: float  # IoU of the masks at logit > 1 and > -1; 0 where both are empty
    mean_probability: float  # over the mask's pixels; 0 where it has none


@torch.inference_mode()
def predict(
    sam: Sam, photo: np.ndarray, boxes_xyxy: np.ndarray, windows: Sequence[Window], chunks: Chunks
) -> Iterator[list[Candidate]]:
    """Prompt SAM with each box alone; its four candidates, for one box after the other.

    `photo`: (H, W, 3) uint8 RGB. `boxes_xyxy`: (N, 4) native pixels. `windows`: N, what to see for each box.
    Logits are upsampled to native pixels one mask at a time, so memory does not grow with N.
    """
    together = len(set(windows)) == 1
    shared = next(chunks.run(1, lambda _: _encode(sam, photo, windows[:1]))) if together else None

    def decoded(some: slice) -> tuple[Sequence[Window], Tensor, Tensor]:
        embeddings = _encode(sam, photo, windows[some]) if shared is None else shared
        prompts = [
            to_view(box[None], window, sam.image_encoder.img_size)
            for box, window in zip(boxes_xyxy[some], windows[some], strict=True)
        ]
        return windows[some], *_decode(sam, embeddings, np.concatenate(prompts))

    for part in chunks.run(len(windows), decoded):
        for window, low_res, scores in zip(*part, strict=True):
            yield [_describe(sam, window, one, float(score)) for one, score in zip(low_res, scores, strict=True)]


def _encode(sam: Sam, photo: np.ndarray, windows: Sequence[Window]) -> Tensor:
    """Image embeddings of windows, (N, C, h, w)."""
    resize = ResizeLongestSide(sam.image_encoder.img_size)
    views = [resize.apply_image(photo[w.y1 : w.y2, w.x1 : w.x2]) for w in windows]
    pixels = [torch.as_tensor(view, device=sam.device).permute(2, 0, 1) for view in views]
    inputs = torch.stack([sam.preprocess(view) for view in pixels])
    # on a CPU a batch only makes tensors that no cache holds, of memory that is asked of the system each time
    parts = inputs.split(1) if sam.device.type == "cpu" else [inputs]
    with _autocast(sam):
        return torch.cat([sam.image_encoder(part) for part in parts])


def _decode(sam: Sam, embeddings: Tensor, prompts_xyxy: np.ndarray) -> tuple[Tensor, Tensor]:
    """N boxes in view pixels on N embeddings, or on one for all -> logits (N, 4, 4h, 4w), predicted IoU (N, 4)."""
    boxes = torch.as_tensor(prompts_xyxy, dtype=torch.float32, device=sam.device)
    with _autocast(sam):
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, predicted_iou = predict_masks(
            sam.mask_decoder, embeddings, sam.prompt_encoder.get_dense_pe(), sparse, dense
        )
    return logits.float().cpu(), predicted_iou.float()


def predict_masks(
    decoder: MaskDecoder, embeddings: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """What `MaskDecoder.predict_masks` computes, for prompts that may each have an image of their own.

    The official method repeats every image for every prompt, so N prompts on N images would be decoded N x N times.
    """
    count = len(sparse)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(count, -1, -1)
    image = embeddings + dense
    hidden, image_out = decoder.transformer(image, positions.expand(count, -1, -1, -1), torch.cat([own, sparse], dim=1))
    upscaled = decoder.output_upscaling(image_out.transpose(1, 2).reshape(image.shape))
    mask_tokens = hidden[:, 1 : 1 + decoder.num_mask_tokens].unbind(dim=1)
    filters = [mlp(token) for mlp, token in zip(decoder.output_hypernetworks_mlps, mask_tokens, strict=True)]
    logits = torch.einsum("nmc,nchw->nmhw", torch.stack(filters, dim=1), upscaled)
    return logits, decoder.iou_prediction_head(hidden[:, 0])


def _describe(sam: Sam, window: Window, low_res: Tensor, predicted_iou: float) -> Candidate:
    """One candidate from the decoder's logits, (4h, 4w), on the CPU."""
    size, input_hw = sam.image_encoder.img_size, input_size_hw(window, sam.image_encoder.img_size)
    rows, columns = (
        _upsampling(cells, size, seen, length)
        for cells, seen, length in zip(low_res.shape, input_hw, window.size_hw, strict=True)
    )
    # only where there may be mask, for images are large and defects small: upsampled logits are means of these
    perhaps = _bounds(low_res > sam.mask_threshold - STABILITY_OFFSET)
    top, bottom = _reach(rows, perhaps.y1, perhaps.y2)
    left, right = _reach(columns, perhaps.x1, perhaps.x2)
    logits = rows[:, top:bottom].T @ low_res @ columns[:, left:right]
    mask = logits > sam.mask_threshold
    tight = _bounds(mask)
    lowest, highest = ((logits > sam.mask_threshold + sign * STABILITY_OFFSET).sum() for sign in (-1, 1))
    left, top = window.x1 + left, window.y1 + top
    return Candidate(
        Window(left + tight.x1, top + tight.y1, left + tight.x2, top + tight.y2),
        mask[tight.y1 : tight.y2, tight.x1 : tight.x2].numpy(),
        predicted_iou,
        float(highest / lowest) if lowest else 0.0,
        float(logits[mask].sigmoid().mean()) if mask.any() else 0.0,
    )


@lru_cache(maxsize=256)
def _upsampling(cells: int, size: int, seen: int, length: int) -> Tensor:
    """(cells, length) weights of the decoder's `cells` in each of a window's `length` pixels, along one axis.

    `Sam.postprocess_masks` on unit vectors: linear to the encoder's `size`, cut to the `seen` of it that is not
    padding, linear to native pixels. Bilinear is linear in both axes, so two such matrices upsample a mask.
    """
    encoded = F.interpolate(torch.eye(cells)[None], size=size, mode="linear", align_corners=False)
    return F.interpolate(encoded[..., :seen], size=length, mode="linear", align_corners=False)[0]


def _reach(weights: Tensor, start: int, stop: int) -> tuple[int, int]:
    """First pixel and end of those that cells `start` to `stop` have a part in; (0, 0) for none."""
    pixels = np.flatnonzero((weights[start:stop] > 0).numpy().any(axis=0))
    return (int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else (0, 0)


def _bounds(mask: Tensor) -> Window:
    """Bounding box of the pixels of a mask on the CPU; (0, 0, 0, 0) where it has none."""
    # numpy's `any` takes a fraction of the time of PyTorch's
    rows, columns = (np.flatnonzero(mask.numpy().any(axis)) for axis in (1, 0))
    if not len(rows):
        return Window(0, 0, 0, 0)
    return Window(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _autocast(sam: Sam) -> torch.autocast:
    return torch.autocast(sam.device.type, torch.bfloat16, enabled=sam.device.type == "cuda")
