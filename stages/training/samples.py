"""Training samples: windows of images, with their labels and boxes, flipped and photometrically augmented."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms.v2.functional import gaussian_blur

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.tables import IGNORE, decode_label_map
from stages.losses.batch import Batch, Boxes
from stages.losses.method import TrainSplit
from stages.losses.train_rows import Rows, first_of_boxes, image_of
from stages.student.inference import pad_to
from stages.student.tiling import to_square
from stages.training.config import AugmentParams, TrainParams
from stages.training.sample_boxes import BoxTable, cut_mask, flip_boxes, nearest, stack

CACHE_BYTES = 2**30
"""Decoded images and label maps are cached if those of the whole train split fit in this; otherwise each is decoded
every time."""

MIN_BLUR_PX = 0.1
"""A Gaussian with a smaller sigma changes nothing that can be seen, and is left out."""


class Sample(NamedTuple):
    """One window, as `Batch` holds it."""

    image: Tensor  # (3, S, S) float in [0, 1]
    clean: Tensor  # (3, S, S) float in [0, 1], flipped like `image`, otherwise not augmented
    labels: Tensor  # (S, S) int64 in 0..K or IGNORE
    boxes: Boxes | None
    trusted: Tensor | None = None  # (S, S) bool, a person drew the label; None: no label of the split is trusted


class Samples(TorchDataset[Sample]):
    """Endless training samples by number: sample i depends on (seed, i) alone, whichever worker draws it.

    With view.scale `native`, sample i is a square cut out at the image's own scale; a share `defect_share` of the
    samples is placed around a box (class drawn first, then one of its boxes, so that rare classes are seen as often
    as common ones), the rest anywhere in any image. With `stretch` the whole image is resized. If some images have
    trusted labels and others none, a share `trusted_share` of the samples is of the former.
    """

    def __init__(self, split: TrainSplit, train: TrainParams, with_boxes: bool) -> None:
        masks = split.masks
        if masks.num_rows == 0:
            raise UserError("the train split has no image to train on")
        self.source, self.view, self.seed, self.train = split.source, split.view, split.seed, train
        self.images = Rows(masks, ["path", "sha256", "exif_orientation"])
        self.labels_of, self.trusted_of = Rows(masks, ["label_map"]), Rows(masks, ["trusted"])
        self.sizes_hw = np.stack([masks["height"].to_numpy(), masks["width"].to_numpy()], axis=1)
        self.cached_all = self.sizes_hw.prod(axis=1, dtype=np.int64).sum() * 4 <= CACHE_BYTES
        self.cache: dict[tuple[str, int], Tensor] = {}
        is_trusted = masks["trusted"].is_valid().to_numpy()
        self.any_trusted = is_trusted.any()
        boxes_by_class = _boxes_by_class(masks, split.candidates)
        self.pools = _pools(is_trusted, boxes_by_class)
        self.boxes = BoxTable(masks, split.candidates) if with_boxes else None
        if not boxes_by_class:
            raise UserError("the train split has no box: there is no defect to learn")

    def __getitem__(self, number: int) -> Sample:
        draw = np.random.default_rng([self.seed, number])
        index, top, left = self._place(draw)
        axes = [axis for axis in (-2, -1) if draw.random() < 0.5] if self.train.augment.flip else []
        clean, labels = self._seen(index, top, left).flip(axes), self._labels_in(index, top, left).flip(axes)
        boxes = trusted = None
        if self.boxes is not None:
            boxes = flip_boxes(self.boxes.window(index, self.view, top, left), axes)
        if self.any_trusted:
            trusted = self._trusted(index, top, left).flip(axes)
        return Sample(augmented(draw, clean, self.train.augment), clean, labels, boxes, trusted)

    def labels(self, number: int) -> Tensor:
        """(S, S) labels of sample `number` before flipping, without decoding its image."""
        return self._labels_in(*self._place(np.random.default_rng([self.seed, number])))

    def _seen(self, index: int, top: int, left: int) -> Tensor:
        """(3, S, S) float in [0, 1]: the window of image `index`; with `stretch` the whole image, as in predictions."""
        size, decode = self.view.size_px, lambda: read_image(self.source, self.images[index])
        image = self._once(("image", index), decode)
        if self.view.scale == "stretch":
            return torch.from_numpy(to_square(image.numpy(), size)).permute(2, 0, 1) / 255
        cut = image.permute(2, 0, 1)[None, :, top : top + size, left : left + size]
        return pad_to(cut.float() / 255, size)[0]

    def _labels_in(self, index: int, top: int, left: int) -> Tensor:
        """(S, S) int64: the labels of the same window, IGNORE beyond the image."""
        decode = lambda: decode_label_map(self.labels_of[index]["label_map"]["bytes"])  # noqa: E731
        size, labels = self.view.size_px, self._once(("labels", index), decode)
        if self.view.scale == "stretch":
            return nearest(labels, size).long()
        window = torch.full((size, size), IGNORE)
        cut = labels[top : top + size, left : left + size]
        window[: cut.shape[0], : cut.shape[1]] = cut  # int64, whatever the labels are
        return window

    def _trusted(self, index: int, top: int, left: int) -> Tensor:
        """(S, S) bool: the pixels of the window whose labels are trusted."""
        code, size, size_hw = self.trusted_of[index]["trusted"], self.view.size_px, self._size_hw(index)
        if code is None:
            return torch.zeros(size, size, dtype=torch.bool)
        return cut_mask(code, size_hw, self.view, top, left)

    def _once(self, name: tuple[str, int], decode: Callable[[], np.ndarray]) -> Tensor:
        """The result of `decode` as a tensor; if all can be cached, it is called once per `name`."""
        if name not in self.cache:
            decoded = torch.from_numpy(decode())
            if not self.cached_all:
                return decoded
            self.cache[name] = decoded
        return self.cache[name]

    def _place(self, draw: np.random.Generator) -> tuple[int, int, int]:
        """Number of an image, and the window's top and left in its pixels."""
        size, pool = self.view.size_px, self.pools[0]
        if len(self.pools) > 1:
            pool = self.pools[int(draw.random() < self.train.trusted_share)]
        around_box = draw.random() < self.train.defect_share and pool.boxes_by_class
        # both branches draw the same numbers, so that changing the share moves no other draw
        pick, at, offset_yx = draw.random(2), draw.random(), draw.random(2)
        if around_box:
            boxes = pool.boxes_by_class[int(pick[0] * len(pool.boxes_by_class))]
            number = int(at * len(boxes.image))
            index, center_yx = int(boxes.image[number]), boxes.center_yx[number]
            corner_yx = center_yx - size * (0.1 + 0.8 * offset_yx)
        else:
            index = int(pool.images[int(at * len(pool.images))])
            corner_yx = offset_yx * (np.array(self._size_hw(index)) - size + 1) - 0.5
        limit_yx = np.maximum(np.array(self._size_hw(index)) - size, 0)
        top, left = np.clip(np.round(corner_yx), 0, limit_yx).astype(int)
        return index, int(top), int(left)

    def _size_hw(self, index: int) -> tuple[int, int]:
        height, width = self.sizes_hw[index].tolist()
        return height, width


class _Boxes(NamedTuple):
    """Boxes of one class, in table order."""

    image: np.ndarray  # (N,) int64, number of the image
    center_yx: np.ndarray  # (N, 2) float64, pixels


class _Pool(NamedTuple):
    """Numbers of images that samples are drawn from, and the boxes of each class that has any there."""

    images: np.ndarray
    boxes_by_class: list[_Boxes]


def _pools(is_trusted: np.ndarray, boxes_by_class: list[_Boxes]) -> list[_Pool]:
    """One pool of all images; if only some have trusted labels, two: images without them, then images with them."""
    pools = []
    for wanted in (False, True):
        images = np.flatnonzero(is_trusted == wanted)
        mine = [(boxes, is_trusted[boxes.image] == wanted) for boxes in boxes_by_class]
        boxes = [_Boxes(*(values[own] for values in boxes)) for boxes, own in mine if own.any()]
        pools += [_Pool(images, boxes)] if len(images) else []
    return pools


def _boxes_by_class(masks: pa.Table, candidates: pa.Table) -> list[_Boxes]:
    """The boxes of each class that has any, by class id."""
    first = first_of_boxes(candidates)
    image, class_id = image_of(masks, candidates)[first], candidates["class_id"].to_numpy()[first]
    x1, y1, x2, y2 = (candidates[name].to_numpy()[first] for name in ("x1", "y1", "x2", "y2"))
    center_yx = np.stack([y1 + y2, x1 + x2], axis=1) / 2
    return [_Boxes(image[own], center_yx[own]) for own in (class_id == each for each in np.unique(class_id))]


def augmented(draw: np.random.Generator, image: Tensor, augment: AugmentParams) -> Tensor:
    """`image` (3, S, S) in [0, 1] with random changes of colour and a random blur, within the limits of `augment`."""
    brightness = 1 + augment.brightness * draw.uniform(-1, 1)
    contrast = 1 + augment.contrast * draw.uniform(-1, 1)
    mean = image.mean()
    image = (image - mean) * contrast + mean * brightness
    if augment.saturation:
        grey = image.mean(dim=0, keepdim=True)
        image = grey + (image - grey) * (1 + augment.saturation * draw.uniform(-1, 1))
    if augment.blur_px and (sigma := augment.blur_px * draw.uniform()) > MIN_BLUR_PX:
        image = gaussian_blur(image, 2 * math.ceil(2 * sigma) + 1, sigma)
    return image.clamp(0, 1)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as one batch; `image_index` of a box is the position of its sample."""
    image, clean, labels, boxes, trusted = zip(*samples, strict=True)
    return Batch(
        torch.stack(image),
        torch.stack(clean),
        torch.stack(labels),
        None if boxes[0] is None else stack(boxes),
        None if trusted[0] is None else torch.stack(trusted),
    )
