"""Score the students of one run, one per seed: val against the pseudo-masks, test against pixel truth.

    python -m stages.evaluate data/models/RUN --tables data/tables --masks data/masks --truth data/truth
        --metrics metrics/RUN.json --predictions data/predictions/RUN

Confusion counts are summed over a split at the images' native size. `evaluate.resolution: stretched_518` selects the
published protocol instead: the image is stretched to 518 x 518 (bilinear) before prediction, and the prediction is
compared there with a truth stretched by nearest neighbour, so that a pixel of a small image weighs more than one of a
large image, and thin defects can vanish from the truth. Defects are connected regions at the same resolution.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder, write_json
from stages.common.options import Device, Masks, Metrics, ParamsFile, Tables, Truth
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.compute.device import device_of, make_deterministic
from stages.data.images import read_image
from stages.data.tables import IMAGES, TRUTH, Dataset, decode_label_map, encode_label_map, read_dataset, read_table
from stages.evaluation.components import regions
from stages.evaluation.config import EvaluateParams, Seeds
from stages.evaluation.predictions import Prediction, write_predictions
from stages.evaluation.split_metrics import at_resolution, split_metrics
from stages.masks.shards import read_masks
from stages.metrics.scores import confusion
from stages.student.inference import predict
from stages.student.segmenter import Segmenter, load_student

STUDENT_FILES = ("student.safetensors", "student.json")


class Params(Section):
    evaluate: EvaluateParams
    seeds: Seeds


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the trained students, one folder per seed.")],
    tables: Tables,
    masks: Masks,
    truth: Truth,
    metrics: Metrics,
    predictions: Annotated[Path, typer.Option(help="Folder for the predicted masks.")],
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Predict every image of val and test, and score those that have a label map to be scored against."""
    wanted = load_params(Params, params)
    values, seeds = wanted.evaluate, wanted.seeds
    source = read_dataset(tables / "dataset.json")
    make_deterministic()
    pseudo, human = read_masks(masks / "val"), read_table(truth / "test.parquet", TRUTH)
    references = {
        "val": (pseudo, by_image(pseudo, pseudo["label_map"].combine_chunks().field("bytes"))),
        "test": (read_table(tables / "test" / "images.parquet", IMAGES), by_image(human, human["mask_png"])),
    }
    result: dict[str, object] = {"resolution": values.resolution, "seeds": seeds}
    with new_folder(predictions) as part:
        for seed in seeds:
            student = load(model / str(seed), source).to(device_of(device))
            for split, (images, label_maps) in references.items():
                title = f"evaluate {split}, seed {seed}"
                rows = predicted(student, source, title, images, label_maps, values)
                write_predictions(part / str(seed) / f"{split}.parquet", rows)
        for split, (_, label_maps) in references.items():
            result |= split_metrics(part, split, source.names, seeds, values, label_maps)
        # A copy for the report, which depends on the folders of all runs. Different students can score alike: their
        # hashes make DVC run the report again.
        write_json(part / "scores.json", result | {"students": {str(s): student_hash(model / str(s)) for s in seeds}})
    write_json(metrics, result)


def load(folder: Path, source: Dataset) -> Segmenter:
    """The student of one seed. Raises UserError when it was trained on other classes than those of the data set."""
    student = load_student(folder)
    if student.config.names != list(source.names):
        raise UserError(f"{folder}: trained on classes {student.config.names}, the data set has {list(source.names)}")
    return student


def student_hash(folder: Path) -> str:
    """Hex SHA-256 of the bytes of STUDENT_FILES, one after the other."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in STUDENT_FILES)).hexdigest()


def predicted(
    student: Segmenter,
    source: Dataset,
    title: str,
    images: pa.Table,
    label_maps: dict[str, pa.Scalar],
    values: EvaluateParams,
) -> Iterator[Prediction]:
    """Predict the images of a table (path, sha256, ...) one by one; `label_maps` holds PNGs by image id."""
    rows = images.select(["image_id", "path", "sha256", "exif_orientation"]).to_pylist()
    for row in progress(rows, title, "images"):
        rgb = read_image(source, row)
        labels, confidence = predict(student, at_resolution(rgb, values))
        scores = regions(labels).means(confidence).tolist()
        counts = None
        if (png := label_maps.get(row["image_id"])) is not None:
            reference = at_resolution(decode_label_map(png.as_py()), values)
            counts = confusion(reference, labels, len(source.names) + 1).ravel().tolist()
        yield Prediction(row["image_id"], encode_label_map(labels), scores, counts)


def by_image(table: pa.Table, pngs: pa.Array) -> dict[str, pa.Scalar]:
    """Label maps as PNG by image id; the bytes are not copied out of the table."""
    return dict(zip(table["image_id"].to_pylist(), pngs, strict=True))


if __name__ == "__main__":
    run(main)
