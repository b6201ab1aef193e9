"""Connected regions of one class: the definition of a defect wherever defects are counted, measured or exported."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.data.boxes import connected
from stages.data.tables import IGNORE


@dataclass(frozen=True)
class Regions:
    """R regions, by class, then in the order of their first pixels.

    `index`: (H, W) int32, 1 to R on their pixels, 0 elsewhere. `class_ids`, `areas_px`: (R,) int64. `places`: (R,)
    int64, the position of each in the list of all regions of the label map; 0 to R - 1 unless some were left out.
    """

    index: np.ndarray
    class_ids: np.ndarray
    areas_px: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.areas_px)

    def means(self, values: np.ndarray) -> np.ndarray:
        """(R,) float64 means of (H, W) `values` over the pixels of each region."""
        sums = np.bincount(self.index.ravel(), weights=values.ravel(), minlength=len(self) + 1)[1:]
        return sums / self.areas_px


def components(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, int]]:
    """For each class in (H, W) uint8 `labels`: class id, and (H, W) map and number of its regions; see `connected`."""
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)):
        if label not in (0, IGNORE):
            yield int(label) - 1, *connected(labels == label)


def regions(labels: np.ndarray, counted: np.ndarray | None = None) -> Regions:
    """All regions of (H, W) uint8 `labels`.

    With (H, W) bool `counted`, pixels where it is False are removed from the regions after these were formed, so that
    no region is split; regions of which no pixel remains are left out.
    """
    index, of_class = np.zeros(labels.shape, dtype=np.int32), []
    for class_id, own, count in components(labels):
        inside = own > 0
        index[inside] = own[inside] + len(of_class)
        of_class += [class_id] * count
    if counted is not None:
        index[~counted] = 0
    areas = np.bincount(index.ravel(), minlength=len(of_class) + 1)[1:]
    places = np.flatnonzero(areas)
    if len(places) < len(of_class):
        number = np.zeros(len(of_class) + 1, dtype=np.int32)
        number[places + 1] = np.arange(1, len(places) + 1)
        index = number[index]
    return Regions(index, np.array(of_class, dtype=np.int64)[places], areas[places].astype(np.int64), places)
