"""The score that chooses a training's best weights: on val, against the SAM teacher's pseudo-masks and, where people
drew masks of val for training, against these. The truth that scores a finished student is not read.
"""

from pathlib import Path

import numpy as np

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.tables import Dataset, decode_label_map
from stages.masks.shards import apart, stream_masks
from stages.metrics.scores import confusion, scores
from stages.student.inference import predict
from stages.student.segmenter import Segmenter
from stages.training.processes import Processes

MOST = 2048
"""Largest number of images that are scored; of a larger val, evenly spaced ones, the same each time."""


class Validation:
    """miou_anom of an EMA student in evaluation mode; each of the processes predicts its part of the images."""

    def __init__(self, source: Dataset, folder: Path, processes: Processes) -> None:
        """`folder`: val's shards. The rows that are scored are held in memory."""
        self.source, self.folder, self.processes = source, folder, processes
        count = sum(1 for _ in stream_masks(folder, ["image_id"]))
        chosen = {number * count // MOST for number in range(MOST)} if count > MOST else range(count)
        self.drawn = any(row["trusted"] is not None for row in stream_masks(folder, ["trusted"]))
        rows = [row for index, row in enumerate(stream_masks(folder)) if index in chosen]
        self.rows = rows[processes.rank :: processes.size]

    def __call__(self, student: Segmenter) -> dict[str, float | None]:
        """Returns `val_miou_anom`; if val has trusted pixels also `val_miou_anom_sam` and `val_miou_anom_trusted`, over
        the pixels that SAM labelled and over the trusted ones, each None if undefined.

        Raises UserError when no pseudo-mask has a defect pixel, and Stopped like `Processes.total`.
        """
        classes = len(self.source.names) + 1
        counts = np.zeros((2, classes, classes), dtype=np.int64)
        for row in self.rows:
            if self.processes.arrived:
                break
            predicted = predict(student, read_image(self.source, row)).labels
            for by_hand, labels in apart(decode_label_map(row["label_map"]["bytes"]), row["trusted"]).items():
                counts[int(by_hand)] += confusion(labels, predicted, classes)
        counts = self.processes.total(counts)
        score, sam, drawn = (
            scores(each, self.source.names)["miou_anom"] for each in (counts.sum(axis=0), counts[0], counts[1])
        )
        if score is None:
            raise UserError(
                f"{self.folder}: no defect pixel in any pseudo-mask, so there is nothing to choose weights by"
            )
        return {"val_miou_anom": score} | (
            {"val_miou_anom_sam": sam, "val_miou_anom_trusted": drawn} if self.drawn else {}
        )
