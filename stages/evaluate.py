"""Score one run's students, one a seed: val against the noisy teacher, test against pixel truth.

    python -m stages.evaluate data/models/RUN --metrics metrics/RUN.json --predictions data/predictions/RUN

Confusion counts are summed over a split at the images' native size. With `evaluate.resolution: stretched_518`
it is the published protocol instead: the image is stretched to 518 x 518 (bilinear) before the network sees it,
and its prediction is compared there with a truth stretched by nearest neighbour, so that a pixel of a small
image counts for more than one of a large image, and thin defects can vanish from the truth. Defects are
connected regions at the same resolution.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from PIL import Image

from stages.common.errors import UserError, run
from stages.common.files import new_folder, write_json
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.compute.device import device_of, make_deterministic
from stages.data.images import read_image
from stages.data.tables import (
    IMAGES,
    TRUTH,
    Dataset,
    decode_label_map,
    encode_label_map,
    read_dataset,
    read_table,
)
from stages.evaluation.average_precision import average_precision, detected
from stages.evaluation.components import regions
from stages.evaluation.config import EvaluateParams, Seeds
from stages.evaluation.defects import counts_of, mean_over_seeds, outcome, summarise_defects
from stages.evaluation.predictions import (
    Prediction,
    image_ids,
    scored_by_seed,
    stream_predictions,
    write_predictions,
)
from stages.evaluation.summary import summarise
from stages.masks.shards import read_masks
from stages.metrics.confusion import confusion
from stages.networks.student import Segmenter, load_student
from stages.student.inference import predict

PUBLISHED_PX = 518


class Params(Section):
    evaluate: EvaluateParams
    seeds: Seeds


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the trained students, one a seed.")],
    metrics: Annotated[Path, typer.Option(help="JSON file for the scores.")],
    predictions: Annotated[Path, typer.Option(help="Folder for the predicted masks.")],
    tables: Annotated[Path, typer.Option(help="Tables of the data set.")] = Path("data/tables"),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks; val is scored against them.")] = Path("data/masks"),
    truth: Annotated[Path, typer.Option(help="Pixel truth; test is scored against it.")] = Path("data/truth"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Predict every image of val and test, and score those that have something to be scored against."""
    wanted = load_params(Params, params)
    values, seeds = wanted.evaluate, wanted.seeds
    source = read_dataset(tables / "dataset.json")
    make_deterministic()
    noisy, human = read_masks(masks / "val"), read_table(truth / "test.parquet", TRUTH)
    references = {
        "val": (noisy, by_image(noisy, noisy["label_map"].combine_chunks().field("bytes"))),
        "test": (read_table(tables / "test" / "images.parquet", IMAGES), by_image(human, human["mask_png"])),
    }
    result: dict[str, object] = {"resolution": values.resolution, "seeds": seeds}
    with new_folder(predictions) as part:
        for seed in seeds:
            student = load(model / str(seed), source).to(device_of(device))
            for split, (photos, label_maps) in references.items():
                title = f"evaluate {split}, seed {seed}"
                rows = predicted(student, source, title, photos, label_maps, values)
                write_predictions(part / str(seed) / f"{split}.parquet", rows)
        for split, (_, label_maps) in references.items():
            result |= split_metrics(part, split, source.names, wanted, label_maps)
        # a copy for the report, which depends on the folders of all runs
        write_json(part / "scores.json", result)
    write_json(metrics, result)


def load(folder: Path, source: Dataset) -> Segmenter:
    """The student of one seed. Raises UserError when it knows other classes than the data set."""
    student = load_student(folder)
    if student.config.names != list(source.names):
        raise UserError(f"{folder}: trained on classes {student.config.names}, the data set has {list(source.names)}")
    return student


def predicted(
    student: Segmenter,
    source: Dataset,
    title: str,
    photos: pa.Table,
    label_maps: dict[str, pa.Scalar],
    values: EvaluateParams,
) -> Iterator[Prediction]:
    """Predict the images of a table (path, sha256, ...) one by one; `label_maps` holds PNGs by image id."""
    rows = photos.select(["image_id", "path", "sha256", "exif_orientation"]).to_pylist()
    for row in progress(rows, title, "images"):
        photo = read_image(source.root, row["path"], row["sha256"], row["exif_orientation"])
        probabilities = predict(student, at_resolution(photo, values, Image.Resampling.BILINEAR))
        labels = probabilities.argmax(0).astype(np.uint8)
        # the label of a pixel is its likeliest class, so the largest probability is that of the region's class
        scores = regions(labels).means(probabilities.max(0)).tolist()
        counts = None
        if (png := label_maps.get(row["image_id"])) is not None:
            reference = at_resolution(decode_label_map(png.as_py()), values, Image.Resampling.NEAREST)
            counts = confusion(reference, labels, len(source.names) + 1).ravel().tolist()
        yield Prediction(row["image_id"], encode_label_map(labels), scores, counts)


def by_image(table: pa.Table, pngs: pa.Array) -> dict[str, pa.Scalar]:
    """Label maps as PNG by image id; they stay where they are, in the table."""
    return dict(zip(table["image_id"].to_pylist(), pngs, strict=True))


def at_resolution(pixels: np.ndarray, values: EvaluateParams, filter_: Image.Resampling) -> np.ndarray:
    """(H, W[, 3]) uint8 unchanged, or stretched to 518 x 518 where the published protocol is asked for."""
    if values.resolution == "native":
        return pixels
    return np.array(Image.fromarray(pixels).resize((PUBLISHED_PX, PUBLISHED_PX), filter_))


def split_metrics(
    folder: Path, split: str, names: tuple[str, ...], wanted: Params, label_maps: dict[str, pa.Scalar]
) -> dict[str, object]:
    """The split's scores, or null and the reason why there are none: nothing is made up."""
    photos = len(image_ids(folder / str(wanted.seeds[0]) / f"{split}.parquet"))
    _, counts = scored_by_seed(folder, wanted.seeds, split, len(names) + 1)
    if len(counts):
        scores = summarise(counts, names, wanted.evaluate.bootstrap)
        defects = defect_metrics(folder, split, names, wanted, label_maps)
        return {split: scores | {"images_without_truth": photos - len(counts), "defects": defects}}
    reason = (
        f"none of the {photos} {split} images has pixel truth: masks lie in a folder `masks` where their images' "
        "folder `images` is, under the same names, as .png"
    )
    return {split: None, f"{split}_not_scored": reason if photos else f"the data set has no {split} images"}


def defect_metrics(
    folder: Path, split: str, names: tuple[str, ...], wanted: Params, label_maps: dict[str, pa.Scalar]
) -> dict[str, object]:
    """Found defects, false alarms and average precision of the scored images, means over seeds."""
    counts, precision = [], []
    for seed in wanted.seeds:
        own, found = [], []
        for row in stream_predictions(folder / str(seed) / f"{split}.parquet"):
            if row["confusion"] is not None:
                png = label_maps[row["image_id"]].as_py()
                reference = at_resolution(decode_label_map(png), wanted.evaluate, Image.Resampling.NEAREST)
                result = outcome(reference, decode_label_map(row["mask_png"]))
                own.append(counts_of(result))
                found.append(detected(result.true, result.predicted, row["defect_scores"]))
        counts.append(own)
        precision.append(average_precision(found, names))
    by_image = np.array(counts).swapaxes(0, 1)
    return summarise_defects(by_image, wanted.evaluate.bootstrap) | mean_over_seeds(precision)


if __name__ == "__main__":
    run(main)
