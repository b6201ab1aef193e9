"""The images of val and test, predicted and scored shard by shard, and the label maps that they are compared with."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common.errors import UserError
from stages.compute.device import device_of, make_deterministic
from stages.data.images import ImageError, read_image
from stages.data.tables import (
    IGNORE,
    IMAGES,
    TRUTH,
    Dataset,
    TruthInOrder,
    count_rows,
    decode_label_map,
    encode_label_map,
    stream_rows,
)
from stages.engine.shard_jobs import Failure, Job, Tick
from stages.evaluation.average_precision import detected
from stages.evaluation.components import regions
from stages.evaluation.config import EvaluateParams
from stages.evaluation.defect_metrics import Outcome, counts_by_class, counts_of, outcome
from stages.evaluation.operating_points import Counts, Watch
from stages.evaluation.probabilities import encode_shares
from stages.evaluation.scored_shards import DRAWN, FILE, POINT, at_resolution, write_scored
from stages.masks import rle
from stages.masks.shards import apart, stream_masks
from stages.metrics.scores import confusion
from stages.student.decision import Decision
from stages.student.inference import predict
from stages.student.segmenter import Segmenter, load_student

SHARD_IMAGES = 256
HUMAN, DRAWN_BY_HAND, SAM = "human masks", "trusted masks", "SAM's masks"

REFERENCES = pa.schema(
    [IMAGES.field(name) for name in ("image_id", "path", "sha256", "exif_orientation")]
    + [pa.field(name, pa.binary()) for name in ("reference", "drawn", "judged")]
)
"""Images with label maps as PNG, null where there is none: what scores are against, those of what people drew, and what
operating points are chosen on."""


@dataclass(frozen=True)
class Evaluate:
    """See `engine.shard_jobs.Work`. `decision`: scored beside argmax, None: argmax alone. `with_shares`: store the
    probabilities too, for the report."""

    staging: Path
    identity: str
    model: Path
    source: Dataset
    values: EvaluateParams
    decision: Decision | None
    with_shares: bool
    device: str

    def open(self) -> Callable[[Job, Path, Tick], list[Failure]]:
        """Load the student."""
        make_deterministic()
        return partial(self._shard, load(self.model, self.source).to(device_of(self.device)))

    def _shard(self, student: Segmenter, job: Job, folder: Path, tick: Tick) -> list[Failure]:
        rows, counts, failures = [], [], []
        for image in job.images.to_pylist():
            try:
                rgb = read_image(self.source, image)
            except ImageError as error:
                failures.append(Failure(image["image_id"], str(error)))
            else:
                rows.append(self._scored(student, image, rgb, counts, folder))
            tick(1)
        if not failures:
            write_scored(folder / FILE, rows, counts)
        return failures

    def _scored(self, student: Segmenter, image: dict, rgb: np.ndarray, counts: list[Counts], folder: Path) -> dict:
        """The image's row of SCORED; adds to `counts`, if the image is judged. `folder`: see `Watch`."""
        classes, shown = len(self.source.names), at_resolution(rgb, self.values)
        watch = Watch(shown.shape[:2], classes, self.decision, folder)
        labels, confidence = predict(student, shown, watch)
        scores = regions(labels).means(confidence).astype(np.float32)
        row: dict = {"image_id": image["image_id"], "mask_png": encode_label_map(labels), "defect_scores": scores}
        if self.with_shares:
            row["shares_png"] = encode_shares(watch.shares)
        for column, prefix in (("reference", ""), ("drawn", DRAWN)):
            if image[column] is not None:
                truth = at_resolution(decode_label_map(image[column]), self.values)
                found = count(row, prefix, truth, labels, classes)
                row[f"{prefix}regions"] = json.dumps(detected(found.true, found.predicted, scores))
        if image["judged"] is not None:
            truth = at_resolution(decode_label_map(image["judged"]), self.values)
            counts.append(watch.counts(truth))
            if self.decision is not None:
                count(row, POINT, truth, watch.decided(), classes)
        return row


def count(row: dict, prefix: str, truth: np.ndarray, labels: np.ndarray, classes: int) -> Outcome:
    """Add the counts of (H, W) `labels` against `truth` to a row of SCORED; returns what the defects became."""
    found = outcome(truth, labels)
    row[f"{prefix}confusion"] = confusion(truth, labels, classes + 1).ravel()
    row[f"{prefix}defects"] = counts_of(found)
    row[f"{prefix}classes"] = counts_by_class(found, classes).ravel()
    return found


def load(folder: Path, source: Dataset) -> Segmenter:
    """The student of one seed. Raises UserError when it was trained on other classes than those of the data set."""
    student = load_student(folder)
    if student.config.names != list(source.names):
        raise UserError(f"{folder}: trained on classes {student.config.names}, the data set has {list(source.names)}")
    return student


def jobs_of(split: str, tables: Path, masks: Path, truth: Path, judged_by: str) -> Iterator[Job]:
    """The jobs of val or test; `judged_by`: see `references`.

    Reads everything as a stream: memory does not grow with the number of images."""
    rows, index = references(split, tables, masks, truth, judged_by), 0
    while (some := list(islice(rows, SHARD_IMAGES))) or not index:
        table = pa.Table.from_pylist(some, schema=REFERENCES)
        yield Job(split, index, table)
        index += 1


def references(split: str, tables: Path, masks: Path, truth: Path, judged_by: str) -> Iterator[dict]:
    """Rows of REFERENCES. Test is scored against human masks; val against SAM's, apart from what people drew.
    `judged_by`: HUMAN, DRAWN_BY_HAND or SAM, what operating points are judged by.

    Raises UserError for human masks that are not in the order of the images.
    """
    human = TruthInOrder(truth / f"{split}.parquet")
    rows = (
        stream_masks(masks / split)
        if split == "val"
        else stream_rows(tables / split / "images.parquet", IMAGES, "ingest")
    )
    for row in rows:
        found = dict.fromkeys((DRAWN_BY_HAND, SAM)) | {HUMAN: human.of(row["image_id"])}
        if split == "val":
            found |= _apart(row["label_map"]["bytes"], row["trusted"])
        yield row | {
            "reference": found[SAM if split == "val" else HUMAN],
            "drawn": found[DRAWN_BY_HAND],
            "judged": found[judged_by],
        }
    human.end("images.parquet", "ingest")


def val_masks(masks: Path, truth: Path) -> tuple[bool, str]:
    """Whether people drew any pixel of val for training, and what operating points are judged by: human masks where
    there is at least one, else what people drew, else SAM's."""
    rows = stream_masks(masks / "val", ["height", "width", "trusted"])
    drawn = any(row["trusted"] and rle.area(row["trusted"], (row["height"], row["width"])) for row in rows)
    human = count_rows(truth / "val.parquet", TRUTH) > 0
    return drawn, HUMAN if human else DRAWN_BY_HAND if drawn else SAM


def _apart(png: bytes, trusted: bytes | None) -> dict[str, bytes]:
    """A pseudo-mask's PNG as that of SAM's pixels and that of those that a person drew, where it has some."""
    if trusted is None:
        return {SAM: png}
    parts = apart(decode_label_map(png), trusted)
    named = ((SAM, parts[False]), (DRAWN_BY_HAND, parts[True]))
    return {name: encode_label_map(labels) for name, labels in named if (labels != IGNORE).any()}
