"""Defects measured in a predicted label map, and the record of an image from which every output format is made."""

from collections.abc import Callable

import numpy as np
from pydantic import Field

from stages.formats.inputs import Source
from stages.formats.measurements import Size, size_of
from stages.formats.regions import Labelled, Region, parts
from stages.runtime.network import Network


class Defect(Region):
    """A region with its confidence and its measurements."""

    confidence: float = Field(ge=0, le=1)
    size: Size


class Record(Labelled):
    """All defects of an image. `file`, `name`: see `formats.inputs.Source`; `model`: `Network.identity`."""

    name: str
    defects: tuple[Defect, ...]


def record_of(
    network: Network, source: Source, sha256: str, image: np.ndarray, in_time: Callable[[], None] = lambda: None
) -> Record:
    """The defects that the network finds in (H, W, 3) uint8 RGB `image`. `in_time`: called before each of them is
    measured; what it raises ends the work."""
    labels, confidence = network.predict(image)
    return Record(
        file=source.file,
        name=source.name,
        sha256=sha256,
        model=network.identity,
        size_hw=labels.shape,
        defects=defects_of(labels, confidence, in_time),
    )


def defects_of(
    labels: np.ndarray, confidence: np.ndarray, in_time: Callable[[], None] = lambda: None
) -> tuple[Defect, ...]:
    """Defects of (H, W) uint8 `labels`, by class, then from the top. `confidence`: (H, W) probability of each label;
    `in_time`: see `record_of`."""
    defects = []
    for about, place, mask in parts(labels):
        in_time()
        sure = round(float(confidence[place][mask].mean(dtype=np.float64)), 4)
        defects.append(Defect(**about, confidence=sure, size=size_of(mask)))
    return tuple(defects)
