"""The images of val and test, predicted one by one, and the label maps that they are compared with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from stages.common.errors import UserError
from stages.common.progress import progress
from stages.data.images import read_image
from stages.data.tables import IGNORE, IMAGES, TRUTH, Dataset, decode_label_map, encode_label_map, read_table
from stages.evaluation.components import regions
from stages.evaluation.config import EvaluateParams
from stages.evaluation.predictions import Prediction, stream_predictions
from stages.evaluation.probabilities import encode_shares
from stages.evaluation.split_metrics import at_resolution
from stages.evaluation.tally import Tally
from stages.masks.shards import apart, read_masks
from stages.metrics.scores import confusion
from stages.student.inference import predict
from stages.student.segmenter import Segmenter, load_student

Reference = tuple[pa.Table, Mapping[str, pa.Scalar], Mapping[str, pa.Scalar]]
"""Images of a split (path, sha256, ...), and PNGs by image id: what scores are against, and operating points."""


class References(NamedTuple):
    """`splits`: of val and test; scores of val are against SAM's masks. `drawn`: PNGs of the trusted pixels of val, by
    image id, the others ignored. `chosen_on`: what val's operating points are chosen on.
    """

    splits: dict[str, Reference]
    drawn: dict[str, pa.Scalar]
    chosen_on: str


def references_of(tables: Path, masks: Path, truth: Path) -> References:
    """What the predictions of val and test are compared with."""
    pseudo = read_masks(masks / "val")
    human = {split: read_table(truth / f"{split}.parquet", TRUTH) for split in ("val", "test")}
    maps = {split: by_image(table, table["mask_png"]) for split, table in human.items()}
    sam = by_image(pseudo, pseudo["label_map"].combine_chunks().field("bytes"))
    drawn = {}
    for image_id, code in zip(pseudo["image_id"].to_pylist(), pseudo["trusted"].to_pylist(), strict=True):
        if code is not None:
            labels = apart(decode_label_map(sam.pop(image_id).as_py()), code)
            for by_hand, found in ((False, sam), (True, drawn)):
                if (labels[by_hand] != IGNORE).any():
                    found[image_id] = pa.scalar(encode_label_map(labels[by_hand]))
    images = read_table(tables / "test" / "images.parquet", IMAGES)
    found = {"val": (pseudo, sam, maps["val"] or drawn or sam), "test": (images, maps["test"], maps["test"])}
    whose = "human masks" if maps["val"] else "trusted masks" if drawn else "SAM's masks"
    return References(found, drawn, f"{whose} of val")


def load(folder: Path, source: Dataset) -> Segmenter:
    """The student of one seed. Raises UserError when it was trained on other classes than those of the data set."""
    student = load_student(folder)
    if student.config.names != list(source.names):
        raise UserError(f"{folder}: trained on classes {student.config.names}, the data set has {list(source.names)}")
    return student


def predicted(
    student: Segmenter,
    source: Dataset,
    title: str,
    images: pa.Table,
    label_maps: Mapping[str, pa.Scalar],
    values: EvaluateParams,
    tally: Tally,
    shown_in_report: bool,
) -> Iterator[Prediction]:
    """Predict the images of a table (path, sha256, ...) one by one; `label_maps` holds PNGs by image id.

    `shown_in_report`: with their probabilities.
    """
    rows = images.select(["image_id", "path", "sha256", "exif_orientation"]).to_pylist()
    for row in progress(rows, title, "images"):
        rgb = read_image(source, row)
        shown = at_resolution(rgb, values)
        watch = tally.watch(shown.shape[:2])
        labels, confidence = predict(student, shown, watch)
        tally.add(row["image_id"], watch)
        scores = regions(labels).means(confidence).tolist()
        counts = None
        if (png := label_maps.get(row["image_id"])) is not None:
            reference = at_resolution(decode_label_map(png.as_py()), values)
            counts = confusion(reference, labels, len(source.names) + 1).ravel().tolist()
        shares = encode_shares(watch.shares) if shown_in_report else None
        yield Prediction(row["image_id"], encode_label_map(labels), scores, counts, shares)


def rescored(
    path: Path, label_maps: Mapping[str, pa.Scalar], values: EvaluateParams, classes: int
) -> Iterator[Prediction]:
    """Of the predictions in `path` those of images in `label_maps` (PNGs by image id), counted against these."""
    for row in stream_predictions(path):
        if (png := label_maps.get(row["image_id"])) is not None:
            reference = at_resolution(decode_label_map(png.as_py()), values)
            counts = confusion(reference, decode_label_map(row["mask_png"]), classes + 1)
            yield Prediction(**row | {"confusion": counts.ravel().tolist()})


def by_image(table: pa.Table, pngs: pa.Array) -> dict[str, pa.Scalar]:
    """Label maps as PNG by image id; the bytes are not copied out of the table."""
    return dict(zip(table["image_id"].to_pylist(), pngs, strict=True))
