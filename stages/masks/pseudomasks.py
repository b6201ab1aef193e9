"""One image's boxes and what SAM said of them -> its rows in the pseudo-mask tables. Costs no network."""

from collections.abc import Sequence

import numpy as np

from stages.data.tables import encode_label_map
from stages.masks.labelmap import Chosen, paint

CANDIDATES_A_BOX = 4


def mask_row(image: dict, candidates: Sequence[dict], clip_margin: float | None) -> dict:
    """The image's row of the masks table, painted from the chosen among its candidate rows."""
    size_hw = (image["height"], image["width"])
    chosen = [Chosen(row["rle"], row["class_id"], _box(row)) for row in candidates if row["chosen"]]
    kept = ("image_id", "path", "sha256", "exif_orientation", "height", "width", "label_status")
    png = encode_label_map(paint(chosen, size_hw, clip_margin))
    return {key: image[key] for key in kept} | {"n_boxes": len(chosen), "label_map": {"bytes": png, "path": None}}


def candidate_rows(boxes: Sequence[dict], found: Sequence[dict], candidate: str) -> list[dict]:
    """Rows of the candidates table: four of `found` for each row of the boxes table, in order, one of them chosen."""
    rows = []
    for number, box in enumerate(boxes):
        four = found[number * CANDIDATES_A_BOX : (number + 1) * CANDIDATES_A_BOX]
        chosen = choose([one["sam_pred_iou"] for one in four], candidate)
        shared = {key: box[key] for key in ("box_id", "image_id", "class_id", "x1", "y1", "x2", "y2")}
        rows += [shared | one | {"chosen": index == chosen} for index, one in enumerate(four)]
    return rows


def choose(predicted_iou: Sequence[float], candidate: str) -> int:
    """Index of the chosen candidate: `single` is 0, `best` the highest predicted IoU of 1 to 3 (a tie: the first)."""
    return 0 if candidate == "single" else 1 + int(np.argmax(predicted_iou[1:]))


def _box(row: dict) -> tuple[float, float, float, float]:
    return row["x1"], row["y1"], row["x2"], row["y2"]
