"""All metrics of one split, from the predictions of a run's students and the label maps of its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.data.tables import decode_label_map
from stages.evaluation.average_precision import average_precision, detected
from stages.evaluation.config import EvaluateParams
from stages.evaluation.defect_metrics import counts_of, mean_over_seeds, outcome, summarise_defects
from stages.evaluation.predictions import image_ids, scored_by_seed, stream_predictions
from stages.evaluation.summary import summarise

PUBLISHED_PX = 518


def at_resolution(pixels: np.ndarray, values: EvaluateParams) -> np.ndarray:
    """uint8 unchanged, or as published at 518 x 518: an image (H, W, 3) bilinear, a label map (H, W) nearest."""
    if values.resolution == "native":
        return pixels
    method = Image.Resampling.BILINEAR if pixels.ndim == 3 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(pixels).resize((PUBLISHED_PX, PUBLISHED_PX), method))


def split_metrics(
    folder: Path,
    split: str,
    names: tuple[str, ...],
    seeds: Sequence[int],
    values: EvaluateParams,
    label_maps: Mapping[str, pa.Scalar],
) -> dict[str, object]:
    """{split: metrics}, or {split: None} and the reason under `<split>_not_scored`.

    `folder`: SEED/<split>.parquet of `write_predictions`. `label_maps`: PNGs by image id.
    """
    paths = [folder / str(seed) / f"{split}.parquet" for seed in seeds]
    images = len(image_ids(paths[0]))
    _, counts = scored_by_seed(folder, seeds, split, len(names) + 1)
    if len(counts):
        defect_counts, precision = zip(
            *(_defects_of_seed(path, names, values, label_maps) for path in paths), strict=True
        )
        defects = summarise_defects(np.array(defect_counts).swapaxes(0, 1), values.bootstrap)
        scores = summarise(counts, names, values.bootstrap) | {"images_without_truth": images - len(counts)}
        return {split: scores | {"defects": defects | mean_over_seeds(precision)}}
    reason = (
        f"none of the {images} {split} images has pixel truth: masks lie in a folder `masks` where their images' "
        "folder `images` is, under the same names, as .png"
    )
    return {split: None, f"{split}_not_scored": reason if images else f"the data set has no {split} images"}


def _defects_of_seed(
    path: Path, names: tuple[str, ...], values: EvaluateParams, label_maps: Mapping[str, pa.Scalar]
) -> tuple[list[np.ndarray], dict[str, object]]:
    """`counts_of` each scored image of one student's predictions, and their average precision."""
    counts, found = [], []
    for row in stream_predictions(path):
        if row["confusion"] is not None:
            truth = at_resolution(decode_label_map(label_maps[row["image_id"]].as_py()), values)
            result = outcome(truth, decode_label_map(row["mask_png"]))
            counts.append(counts_of(result))
            found.append(detected(result.true, result.predicted, row["defect_scores"]))
    return counts, average_precision(found, names)
