"""Which images the report shows: the worst first, then a spread over the rest, so that it is no freak show."""

import numpy as np

from stages.metrics.scores import score_arrays


def worst_first(image_ids: list[str], counts: np.ndarray) -> list[str]:
    """Image ids by binary error, 1 - IoU against the reference, then by wrong pixels, then by name.

    `counts`: (N, K+1, K+1) per image, rows truth. Images with no defect, true or predicted, come last.
    """
    binary_iou = score_arrays(counts, [str(k) for k in range(counts.shape[-1] - 1)])["iou_bin"]
    error = np.where(np.isnan(binary_iou), -1.0, 1 - binary_iou)
    wrong = counts[:, 0, 1:].sum(axis=1) + counts[:, 1:, 0].sum(axis=1)
    order = sorted(range(len(image_ids)), key=lambda i: (-error[i], -wrong[i], image_ids[i]))
    return [image_ids[i] for i in order]


def spread(items: list[str], count: int) -> list[str]:
    """At most `count` items in their order: half of them from the front, the others at even steps to the end."""
    if len(items) <= count:
        return items
    front = -(-count // 2)
    steps = np.linspace(front - 1, len(items) - 1, count - front + 1)[1:].round().astype(int)
    return items[:front] + [items[i] for i in steps]


def shares(available: dict[str, int], total: int) -> dict[str, int]:
    """Pictures per split: two thirds for test and the rest for val, and what one cannot use is the other's."""
    test = min(available["test"], max(-(-2 * total // 3), total - available["val"]))
    return {"test": test, "val": min(available["val"], total - test)}
