"""Appraise the pseudo-masks against truth, beside plainly filling the boxes.

    python -m stages.appraise --metrics metrics/rasterize.json

A stage of its own, so that truth cannot reach the masks and a correction of the truth never reruns SAM.
"""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
import typer

from stages.appraisal.quality import box_quality, pixel_counts, summarise
from stages.common.errors import run
from stages.common.files import write_json
from stages.common.progress import progress
from stages.data.tables import SPLITS, TRUTH, decode_label_map, read_dataset, read_table
from stages.masks.shards import read_shard, shard_indices


def main(
    tables: Annotated[Path, typer.Option(help="Folder of the tables that ingest wrote.")] = Path("data/tables"),
    masks: Annotated[Path, typer.Option(help="Folder of the pseudo-masks.")] = Path("data/masks"),
    truth: Annotated[Path, typer.Option(help="Folder of the human pixel truth.")] = Path("data/truth"),
    metrics: Annotated[Path, typer.Option(help="JSON file for the figures.")] = Path("metrics/rasterize.json"),
) -> None:
    """Write what the pseudo-masks of every split are worth, or why that cannot be said."""
    names = read_dataset(tables / "dataset.json").names
    write_json(metrics, {split: appraise(masks / split, truth / f"{split}.parquet", names) for split in SPLITS})


def appraise(folder: Path, truth: Path, names: tuple[str, ...]) -> dict[str, object]:
    """Figures of one split; shard by shard, so that memory does not grow with their number."""
    human = read_table(truth, TRUTH)
    position = {image_id: index for index, image_id in enumerate(human["image_id"].to_pylist())}
    totals, boxes = {"images": 0, "boxes": 0, "empty_masks": 0, "images_with_truth": 0}, []
    counts = np.zeros((2, len(names) + 1, len(names) + 1), dtype=np.int64)
    for index in progress(shard_indices(folder), f"appraise {folder.name}", "shards"):
        images, candidates = read_shard(folder, index)
        chosen = candidates.filter(candidates["chosen"])
        totals["images"] += len(images)
        totals["boxes"] += len(chosen)
        totals["empty_masks"] += pc.sum(pc.equal(chosen["area_in_box"], 0)).as_py() or 0
        known = [image for image in images.to_pylist() if image["image_id"] in position]
        rows = candidates.filter(pc.is_in(candidates["image_id"], human["image_id"].combine_chunks()))
        of_image = {key: list(group) for key, group in groupby(rows.to_pylist(), lambda row: row["image_id"])}
        for image in known:
            labels = decode_label_map(human["mask_png"][position[image["image_id"]]].as_py())
            of_box = [
                list(group) for _, group in groupby(of_image.get(image["image_id"], []), lambda row: row["box_id"])
            ]
            found = [box_quality(group, labels) for group in of_box]
            corners = [tuple(group[0][key] for key in ("x1", "y1", "x2", "y2")) for group in of_box]
            pseudo = decode_label_map(image["label_map"]["bytes"])
            counts += pixel_counts(pseudo, found, corners, labels, len(names) + 1)
            boxes += found
        totals["images_with_truth"] += len(known)
    if totals["images_with_truth"]:
        return totals | summarise(boxes, counts, names)
    reason = "no image has pixel truth" if totals["images"] else "the data set has no such images"
    return totals | {"not_scored": reason}


if __name__ == "__main__":
    run(main)
