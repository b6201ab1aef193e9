"""Sizes of one defect, in pixels: length and width of a thin one, diameter of a compact one, orientation.

`tests/test_measurements.py` limits the errors on lines and discs of known size; docs/predict.md states them.
"""

import math

import numpy as np
from pydantic import Field
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from skimage.measure import block_reduce
from skimage.morphology import skeletonize

from stages.common.params import Section

THIN = 3.0
"""Least ratio of length to mean width of a thin defect. A disc has 1.3, a square up to 1.5."""

SMOOTHED_PX = 7
"""Length of the moving average over the path's pixels: without it, the length of a line depends on its angle."""

DIRECTED = 1.2
"""Least elongation from which a defect has an orientation."""

WIDE_PX = 64
"""Largest half side of a square in a region that is measured at full size. Others are on a grid of every second pixel,
or a coarser one, for thinning takes time in proportion to area x width; sizes grow by less than two of its pixels.
"""

BAND = 256
"""Rows whose distances to the border are computed at once: they take 100 bytes per pixel."""


class Size(Section):
    """Sizes of a region in pixels. What does not apply is None.

    Of a thin region: `length`, from end to end along the skeleton, by the longest way through it, so that branches do
    not count, and of a closed ring about half of the way round; `mean_width`, area / length of the whole skeleton,
    where branches do; `max_width`, diameter of the largest inscribed circle. Of a compact one: `diameter` of the circle
    of equal area. `elongation`: ratio of the axes of the ellipse with the region's second moments, at least 1.
    `orientation_deg`: of its long axis, from -90 (exclusive) to 90, 0 along the rows, counter-clockwise; None where
    both axes are nearly equal.
    """

    length: float | None = Field(gt=0)
    mean_width: float | None = Field(gt=0)
    max_width: float | None = Field(gt=0)
    diameter: float | None = Field(gt=0)
    elongation: float = Field(ge=1)
    orientation_deg: float | None = Field(gt=-90, le=90)


def size_of(mask: np.ndarray) -> Size:
    """The sizes of an 8-connected (h, w) bool `mask`."""
    area, (elongation, degrees) = int(mask.sum()), axes_of(mask)
    length, whole, widest = lengths_of(mask)
    thin = length >= THIN * area / length
    return Size(
        length=round(length, 2) if thin else None,
        mean_width=round(area / whole, 2) if thin else None,
        max_width=round(widest, 2) if thin else None,
        diameter=None if thin else round(math.sqrt(4 * area / math.pi), 2),
        elongation=round(elongation, 3),
        orientation_deg=round(degrees, 1) + 0.0 if elongation >= DIRECTED else None,
    )


def axes_of(mask: np.ndarray) -> tuple[float, float]:
    """Elongation and angle of the long axis in degrees, see `Size`, of (h, w) bool `mask`.

    Its pixels are unit squares: an upright rectangle a x b has the elongation a / b.
    """
    by_column, by_row = mask.sum(0), mask.sum(1)
    x = np.arange(len(by_column)) - np.average(np.arange(len(by_column)), weights=by_column)
    y = np.arange(len(by_row)) - np.average(np.arange(len(by_row)), weights=by_row)
    area = by_row.sum()
    # a unit square has a variance of 1/12: a single row of pixels has a width
    var_x, var_y = by_column @ x**2 / area + 1 / 12, by_row @ y**2 / area + 1 / 12
    covariance = y @ (mask @ x) / area
    middle, spread = (var_x + var_y) / 2, math.hypot((var_x - var_y) / 2, covariance)
    # rows count downwards: the angle is negated
    degrees = math.degrees(math.atan2(-2 * covariance, var_x - var_y) / 2)
    return math.sqrt((middle + spread) / (middle - spread)), 90.0 if degrees <= -89.95 else degrees


def lengths_of(mask: np.ndarray) -> tuple[float, float, float]:
    """Length from end to end along the skeleton, that with all branches, and diameter of the largest inscribed circle.

    In pixels, of (h, w) bool `mask`, 8-connected. The skeleton ends half a width or more before the region does: the
    missing length at both ends is added.
    """
    padded = np.pad(mask, 1)
    half = int(ndimage.distance_transform_cdt(padded).max())
    if half > WIDE_PX:
        # a coarse pixel is inside where any of its four is: no thin part is lost or cut off
        return tuple(2 * size for size in lengths_of(block_reduce(mask, 2, np.any)))
    # Lee's method: Zhang's, the default in 2D, erases diagonal lines of two pixels
    skeleton = skeletonize(padded, method="lee") > 0
    path, widest = longest_path(skeleton), widest_circle(padded, 2 * half)
    steps = np.diff(smoothed(path.astype(np.float64)), axis=0)
    length = float(np.hypot(*steps.T).sum()) + sum(beyond(padded, way, widest) for way in (path, path[::-1]))
    return length, length * float(skeleton.sum()) / len(path), widest


def widest_circle(padded: np.ndarray, reach: int) -> float:
    """Diameter of the largest circle inside (h, w) bool `padded`, whose outermost rows and columns are False.

    `reach`: pixels, at least its radius.
    """
    widest = 0.0
    for top in range(0, len(padded), BAND):
        band = padded[max(top - reach, 0) : top + BAND + reach]
        # on a grid of half pixels, so that even widths have a centre; points on the border are outside
        quarters = band.repeat(2, 0).repeat(2, 1)
        inside = quarters[:-1, :-1] & quarters[1:, :-1] & quarters[:-1, 1:] & quarters[1:, 1:]
        first = 2 * min(top, reach)
        widest = max(widest, float(ndimage.distance_transform_edt(inside)[first : first + 2 * BAND].max()))
    return widest


def beyond(padded: np.ndarray, path: np.ndarray, widest: float) -> float:
    """How far the region extends beyond the start of `path` in the path's direction there, in pixels.

    `padded`: (h, w) bool, the region; `path`: (N, 2); `widest`: diameter of the largest inscribed circle.
    """
    step = path[0] - path[min(len(path) - 1, max(SMOOTHED_PX, round(widest)))]
    if not step.any():
        return widest / 2
    corner = np.maximum(path[0] - math.ceil(widest + 3), 0)
    far = path[0] + math.ceil(widest + 3) + 1
    offsets = np.argwhere(padded[corner[0] : far[0], corner[1] : far[1]]) + corner - path[0]
    near = offsets[np.hypot(*offsets.T) <= widest + 3]
    return float((near @ step).max() / np.hypot(*step) + 0.5)


def smoothed(path: np.ndarray) -> np.ndarray:
    """(N, 2) moving average of `path`, over fewer points near its ends. The end points do not move."""
    sums = np.concatenate([np.zeros((1, 2)), path.cumsum(0)])
    place = np.arange(len(path))
    reach = np.minimum(np.minimum(place, place[::-1]), SMOOTHED_PX // 2)
    return (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)[:, None]


def longest_path(skeleton: np.ndarray) -> np.ndarray:
    """(N, 2) rows and columns of the pixels from one end of (h, w) bool `skeleton` to the other, along it.

    The longest of all shortest ways between two pixels; in a skeleton with loops one that is nearly as long.
    """
    pixels = np.argwhere(skeleton)
    index = np.full(skeleton.shape, -1)
    index[skeleton] = np.arange(len(pixels))
    starts, ends, weights = [], [], []
    for step in ((0, 1), (1, -1), (1, 0), (1, 1)):  # padded by background: no step leaves the array
        other = index[tuple((pixels + step).T)]
        found = np.flatnonzero(other >= 0)
        starts.append(found)
        ends.append(other[found])
        weights.append(np.full(len(found), math.hypot(*step)))
    entries = np.concatenate(weights), (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array(entries, shape=(len(pixels),) * 2).tocsr()
    first = int(dijkstra(graph, directed=False, indices=0).argmax())
    distances, before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)
    way = [int(distances.argmax())]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    return pixels[way]
