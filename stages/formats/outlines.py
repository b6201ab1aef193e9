"""Outlines of masks along the edges of pixels: exact polygons, for formats that hold nothing else."""

import numpy as np

Ring = list[tuple[int, int]]
"""Corners (x, y) between pixels, in pixels of the mask; the last joins the first."""


def outlines(mask: np.ndarray) -> tuple[Ring, list[Ring]]:
    """The outer ring of a connected (h, w) bool mask, and one ring for each of its holes.

    Pixels that touch at a corner are connected, so that the outer ring passes such a corner twice; a hole is closed
    when no 4-connected way leads out of it. The ring, filled at pixel centres, is the mask with its holes filled.
    """
    follow = _edges(mask)
    top = int(mask.any(axis=1).argmax())
    start = (int(mask[top].argmax()), top)
    outer = _ring(follow, start, (1, 0))
    holes = []
    while follow:
        corner = next(iter(follow))
        holes.append(_ring(follow, corner, follow[corner][0]))
    return outer, holes


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner to the steps that leave it, with the mask always on the right hand."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    follow: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for neighbour, (shift_x, shift_y), step in sides:
        rows, columns = np.nonzero(inside & ~neighbour)
        for corner in zip((columns + shift_x).tolist(), (rows + shift_y).tolist(), strict=True):
            follow.setdefault(corner, []).append(step)
    return follow


def _ring(follow: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int], step: tuple[int, int]) -> Ring:
    """Walk one ring, taking its edges out of `follow`; corners between equal steps are left out."""
    ring, corner, first = [], start, step
    while True:
        follow[corner].remove(step)
        if not follow[corner]:
            del follow[corner]
        corner = (corner[0] + step[0], corner[1] + step[1])
        # where two pixels touch at a corner, turning left leads on to the other one
        left, ways = (step[1], -step[0]), follow.get(corner, [])
        closed = corner == start and (first == left or not ways)
        turn = first if closed else left if left in ways else ways[0]
        if turn != step:
            ring.append(corner)
        if closed:
            return ring
        step = turn
