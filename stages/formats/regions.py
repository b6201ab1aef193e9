"""Regions of a label map, and an image with its regions, from which the files for annotation tools are made."""

from collections.abc import Iterator

import numpy as np
from pydantic import Field
from scipy import ndimage

from stages.common.params import Section
from stages.data.boxes import Window
from stages.evaluation.components import components
from stages.masks import rle


class Region(Section):
    """One 8-connected region of one class.

    `box_xyxy`: pixels, half-open. `holes`: number of enclosed 4-connected regions. `rle`: COCO's compressed run
    lengths, at the size of the image. `confidence`: mean probability of its class over its pixels, where there is one.
    """

    class_id: int = Field(ge=0)
    box_xyxy: tuple[int, int, int, int]
    area_px: int = Field(gt=0)
    holes: int = Field(ge=0)
    rle: str
    confidence: float | None = Field(default=None, ge=0, le=1)

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray:
        """(h, w) bool: the part of the image in `box_xyxy`."""
        return rle.decode_part(self.rle.encode("ascii"), size_hw, Window(*self.box_xyxy))


class Labelled(Section):
    """All regions of an image. `file`: its path as annotation tools name it, with `/`; `sha256`: of the image file's
    bytes; `model`: what drew them, such as the identity of a network."""

    file: str
    sha256: str
    model: str
    size_hw: tuple[int, int]
    defects: tuple[Region, ...]

    def labels(self) -> np.ndarray:
        """(H, W) uint8 label map: 0 = background, class id + 1."""
        labels = np.zeros(self.size_hw, np.uint8)
        for defect in self.defects:
            x1, y1, x2, y2 = defect.box_xyxy
            labels[y1:y2, x1:x2][defect.mask(self.size_hw)] = defect.class_id + 1
        return labels


def parts(labels: np.ndarray) -> Iterator[tuple[dict, tuple[slice, slice], np.ndarray]]:
    """Regions of (H, W) uint8 `labels`, by class, then from the top: the fields of a Region, its place in the image and
    its (h, w) bool mask there."""
    for class_id, numbered, _ in components(labels):
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[rows, columns] == number
            about = {
                "class_id": class_id,
                "box_xyxy": (columns.start, rows.start, columns.stop, rows.stop),
                "area_px": int(mask.sum()),
                "holes": ndimage.label(~np.pad(mask, 1))[1] - 1,
                "rle": rle.encode(mask, (columns.start, rows.start), labels.shape).decode("ascii"),
            }
            yield about, (rows, columns), mask
