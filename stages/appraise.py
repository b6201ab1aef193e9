"""Score the pseudo-masks against the truth, next to label maps with every box filled.

    python -m stages.appraise --tables data/tables --masks data/masks --truth data/truth
        --metrics metrics/rasterize.json

A stage of its own, so that truth cannot influence the masks and a correction of the truth never reruns SAM. Images of
which a person drew labels for training are left out: their masks are not the teacher's.
"""

from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.appraisal.quality import FALLBACKS, BoxQuality, box_quality, fallback, pixel_counts, summarise
from stages.common.errors import run
from stages.common.options import Masks, Metrics, Tables, Truth
from stages.common.params import write_sealed
from stages.common.progress import progress
from stages.data.tables import SPLITS, TruthInOrder, by_image, decode_label_map, read_dataset
from stages.masks.shards import read_shard, shard_indices

BRIEF = ["box_id", "image_id", "class_id", "x1", "y1", "x2", "y2", "chosen", "rle", "area_in_box", "mean_prob_in"]
"""Columns of the candidates table that `fallback` and its caller need."""


def main(tables: Tables, masks: Masks, truth: Truth, metrics: Metrics) -> None:
    """Write the quality of the pseudo-masks of every split, or the reason why it is not available."""
    names = read_dataset(tables / "dataset.json").names
    write_sealed(metrics, {split: appraise(masks / split, truth / f"{split}.parquet", names) for split in SPLITS})


def appraise(folder: Path, truth: Path, names: tuple[str, ...]) -> dict[str, object]:
    """Metrics of one split, read shard by shard. Memory grows by some numbers per box with truth, not by label maps."""
    human = TruthInOrder(truth)
    totals, boxes = {"images": 0, "boxes": 0, "empty_masks": 0, "images_with_truth": 0}, list[BoxQuality]()
    counts = np.zeros((2, len(names) + 1, len(names) + 1), dtype=np.int64)
    by_class = {name: dict.fromkeys(("boxes", *FALLBACKS), 0) for name in names}
    for index in progress(shard_indices(folder), f"appraise {folder.name}", "shards"):
        images, candidates = read_shard(folder, index)
        chosen = candidates.filter(candidates["chosen"])
        asked = {image["image_id"]: image for image in images.to_pylist() if image["trusted"] is None}
        pngs = {image_id: png for image_id in images["image_id"].to_pylist() if (png := human.of(image_id)) is not None}
        known = [image for image_id, image in asked.items() if image_id in pngs]
        totals["images"] += len(images)
        totals["boxes"] += len(chosen)
        totals["empty_masks"] += pc.sum(pc.equal(chosen["area_in_box"], 0)).as_py() or 0
        totals["images_with_truth"] += len(known)
        for _, group in groupby(candidates.select(BRIEF).to_pylist(), lambda row: row["box_id"]):
            own = list(group)
            if image := asked.get(own[0]["image_id"]):
                why = fallback(own, (image["height"], image["width"]))
                for key in ("boxes", *([why] if why else [])):
                    by_class[names[own[0]["class_id"]]][key] += 1
        rows = candidates.filter(pc.is_in(candidates["image_id"], pa.array(list(pngs), pa.string()))).to_pylist()
        of_image = by_image(rows)
        for image in known:
            labels = decode_label_map(pngs[image["image_id"]])
            own = groupby(of_image.get(image["image_id"], []), lambda row: row["box_id"])
            found = [box_quality(list(group), labels) for _, group in own]
            counts += pixel_counts(decode_label_map(image["label_map"]["bytes"]), found, labels, len(names) + 1)
            boxes += found
    totals["masks_by_class"] = by_class
    human.end(folder, "rasterize")
    if totals["images_with_truth"]:
        return totals | summarise(boxes, counts, names)
    reason = "no image has pixel truth" if totals["images"] else "the data set has no such images"
    return totals | {"not_scored": reason}


if __name__ == "__main__":
    run(main)
