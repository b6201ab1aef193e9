"""All metrics of one split, from what a run's students make of its images."""

from collections.abc import Sequence

import numpy as np

from stages.evaluation.average_precision import average_precision
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.defect_metrics import mean_over_seeds, summarise_defects
from stages.evaluation.scored_shards import Scored
from stages.evaluation.summary import summarise


def split_metrics(
    split: str, seeds: Sequence[Scored], names: tuple[str, ...], bootstrap: BootstrapParams
) -> dict[str, object]:
    """{split: metrics}, or {split: None} and the reason under `<split>_not_scored`. `seeds`: one per student."""
    images, scored = seeds[0].images, len(seeds[0].confusion)
    if scored:
        counts, defects = (
            np.stack(each, axis=1) for each in zip(*((s.confusion, s.defects) for s in seeds), strict=True)
        )
        found = summarise_defects(defects, bootstrap)
        found |= mean_over_seeds([average_precision(seed.detected, names) for seed in seeds])
        return {
            split: summarise(counts, names, bootstrap) | {"images_without_truth": images - scored, "defects": found}
        }
    reason = (
        f"none of the {images} {split} images has pixel truth: masks lie in a folder `masks` where their images' "
        "folder `images` is, under the same names, as .png"
    )
    return {split: None, f"{split}_not_scored": reason if images else f"the data set has no {split} images"}
