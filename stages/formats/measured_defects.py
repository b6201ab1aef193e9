"""Defects measured in a label map, and the record of an image from which every output format is made."""

import numpy as np
from pydantic import Field
from scipy import ndimage

from stages.common.params import Section
from stages.data.boxes import Window
from stages.evaluation.components import components
from stages.formats.inputs import Source
from stages.formats.measurements import Size, size_of
from stages.masks import rle
from stages.runtime.network import Network
from stages.student.tiling import predict


class Defect(Section):
    """One 8-connected region of one class.

    `box_xyxy`: pixels, half-open. `confidence`: mean probability of its class over its pixels. `holes`: number of
    enclosed 4-connected regions. `rle`: COCO's compressed run lengths, at the size of the image.
    """

    class_id: int = Field(ge=0)
    box_xyxy: tuple[int, int, int, int]
    area_px: int = Field(gt=0)
    confidence: float = Field(ge=0, le=1)
    size: Size
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


def record_of(network: Network, source: Source, sha256: str, image: np.ndarray) -> Record:
    """The defects that the network finds in (H, W, 3) uint8 RGB `image`."""
    labels, confidence = predict(network.run, image, network.view, network.decision)
    return Record(
        file=source.file,
        name=source.name,
        sha256=sha256,
        model=network.identity,
        size_hw=labels.shape,
        defects=defects_of(labels, confidence),
    )


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
                    size=size_of(mask),
                    holes=ndimage.label(~np.pad(mask, 1))[1] - 1,
                    rle=rle.encode(mask, (columns.start, rows.start), labels.shape).decode("ascii"),
                )
            )
    return tuple(found)
