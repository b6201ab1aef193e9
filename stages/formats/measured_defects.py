"""Defects measured in a label map, and the record of an image from which every output format is made."""

import math

import numpy as np
from pydantic import Field
from scipy import ndimage

from stages.common.params import Section
from stages.data.boxes import Window
from stages.evaluation.components import components
from stages.masks import rle


class Defect(Section):
    """One 8-connected region of one class.

    `box_xyxy`: pixels, half-open. `confidence`: mean probability of its class over its pixels. `elongation`: ratio of
    the axes of the ellipse with the region's second moments, at least 1. `holes`: number of enclosed 4-connected
    regions. `rle`: COCO's compressed run lengths, at the size of the image.
    """

    class_id: int = Field(ge=0)
    box_xyxy: tuple[int, int, int, int]
    area_px: int = Field(gt=0)
    confidence: float = Field(ge=0, le=1)
    elongation: float = Field(ge=1)
    holes: int = Field(ge=0)
    rle: str

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray:
        """(h, w) bool: the part of the image in `box_xyxy`."""
        return rle.decode_part(self.rle.encode("ascii"), size_hw, Window(*self.box_xyxy))


class Record(Section):
    """All defects of an image. `file`, `name`: see `formats.inputs.Source`; `sha256`: of the image file's bytes;
    `model`: `Network.identity`."""

    file: str
    name: str
    sha256: str
    model: str
    size_hw: tuple[int, int]
    defects: tuple[Defect, ...]

    def labels(self) -> np.ndarray:
        """(H, W) uint8 label map: 0 = background, class id + 1."""
        labels = np.zeros(self.size_hw, np.uint8)
        for defect in self.defects:
            x1, y1, x2, y2 = defect.box_xyxy
            labels[y1:y2, x1:x2][defect.mask(self.size_hw)] = defect.class_id + 1
        return labels


def defects_of(labels: np.ndarray, confidence: np.ndarray) -> tuple[Defect, ...]:
    """Defects of (H, W) uint8 `labels`, by class, then from the top. `confidence`: (H, W), of each pixel's label."""
    found = []
    for class_id, regions, _ in components(labels):
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            mask = regions[rows, columns] == number
            found.append(
                Defect(
                    class_id=class_id,
                    box_xyxy=(columns.start, rows.start, columns.stop, rows.stop),
                    area_px=int(mask.sum()),
                    confidence=round(float(confidence[rows, columns][mask].mean(dtype=np.float64)), 4),
                    elongation=round(elongation(mask), 3),
                    holes=ndimage.label(~np.pad(mask, 1))[1] - 1,
                    rle=rle.encode(mask, (columns.start, rows.start), labels.shape).decode("ascii"),
                )
            )
    return tuple(found)


def elongation(mask: np.ndarray) -> float:
    """Axis ratio of the ellipse with the second moments of `mask`, its pixels unit squares: a x b gives a / b."""
    y, x = np.nonzero(mask)
    # a unit square has a variance of 1/12: a single row of pixels has a width
    var_x, var_y = x.var() + 1 / 12, y.var() + 1 / 12
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    middle, spread = (var_x + var_y) / 2, math.hypot((var_x - var_y) / 2, covariance)
    return math.sqrt((middle + spread) / (middle - spread))
