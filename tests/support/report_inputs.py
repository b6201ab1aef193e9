"""Inputs of the report for tests: a data set of a few images, and runs with predictions, scores and curves."""

import hashlib
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from stages import report
from stages.common.files import write_csv
from stages.common.params import write_sealed
from stages.data.tables import BOXES, IMAGES, TRUTH, Dataset, encode_label_map, write_dataset, write_table
from stages.evaluation.average_precision import average_precision, detected
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.defect_metrics import counts_of, outcome, summarise_defects
from stages.evaluation.operating_points import Watch, curves
from stages.evaluation.predictions import PREDICTIONS
from stages.evaluation.probabilities import encode_shares
from stages.evaluation.summary import summarise
from stages.metrics.scores import confusion
from tests.support.mask_shards import write_split

NAMES = ("dirt", "damage")
SIZE_HW = (40, 64)
BOOTSTRAP = BootstrapParams(samples=200, seed=1)
LABELS = np.zeros(SIZE_HW, dtype=np.uint8)
LABELS[5:15, 10:30] = 1
LABELS[20:30, 10:40] = 2


POINT = {
    "wish": {"recall": 0.9},
    "chosen_on": "SAM's masks of val",
    "by_seed": [{"thresholds": [0.7, 0.3], "least_area_px": [1, 1], "temperature": 1.0}],
    "val_expected_calibration_error": {"before": 0.25, "after": 0.125},
    "test_expected_calibration_error": {"before": 0.5, "after": 0.375},
}


def watched(labels: np.ndarray, classes: int) -> Watch:
    """A student that is sure of background, and of `labels` to 0.65 in the upper half of rows, to 0.9 in the lower."""
    probabilities = np.full((classes + 1, *labels.shape), 0.01)
    for label in range(classes + 1):
        probabilities[label][labels == label] = 0.98 if label == 0 else 0.65
    probabilities[1:, SIZE_HW[0] // 2 :][probabilities[1:, SIZE_HW[0] // 2 :] == 0.65] = 0.9
    probabilities[0] += 1 - probabilities.sum(0)
    watch = Watch(labels.shape, classes)
    watch(slice(0, len(labels)), np.log(probabilities).astype(np.float32))
    return watch


def build(
    root: Path,
    test_truth: bool = True,
    runs: tuple[str, ...] = ("full", "worse"),
    images: int = 3,
    names: tuple[str, ...] = NAMES,
    stem: str = "p",
    near: Sequence[Sequence] = (),
) -> None:
    """Inputs of the report: `full` predicts exactly except for its last image, and each further run one row less.

    `near`: rows of near_duplicates.csv.
    """
    write_dataset(root / "tables" / "dataset.json", Dataset(root / "set", names))
    ids = {split: [f"{split}/{stem}{index}" for index in range(images)] for split in ("val", "test")}
    for split, image_ids in ids.items():
        rows = []
        for index, image_id in enumerate(image_ids):
            path = root / "set" / "images" / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((*SIZE_HW, 3), 90 + 10 * index, np.uint8)).save(path)
            row = {
                "image_id": image_id,
                "path": f"images/{image_id}.png",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "exif_orientation": 1,
                "height": SIZE_HW[0],
                "width": SIZE_HW[1],
                "label_status": "labelled",
            }
            rows.append({**row, "n_boxes": 1, "label_map": {"bytes": encode_label_map(LABELS), "path": None}})
        write_split(root / "masks" / split, (rows, []))
        listed = [{**{key: row[key] for key in IMAGES.names if key != "split"}, "split": split} for row in rows]
        write_table(root / "tables" / split / "images.parquet", IMAGES, listed)
        box = {"box_id": f"{image_ids[0]}:1", "image_id": image_ids[0], "class_id": 0, "source": "x.txt", "line": 1}
        write_table(root / "tables" / split / "boxes.parquet", BOXES, [{**box, "x1": 9.0, "y1": 5, "x2": 31, "y2": 15}])
        truth = {"height": SIZE_HW[0], "width": SIZE_HW[1], "mask_png": encode_label_map(LABELS)}
        known = image_ids if split == "test" and test_truth else []
        write_table(root / "truth" / f"{split}.parquet", TRUTH, [{"image_id": key, **truth} for key in known])
    columns = ("distance", "split", "path", "other_split", "other_path")
    write_csv(root / "tables/near_duplicates.csv", columns, near)
    for number, name in enumerate(runs):
        metrics: dict[str, object] = {"resolution": "native", "seeds": [7], "operating_point": POINT}
        metrics["card"] = {"facts": [["data set", f"the set of {name}"]], "not_tested": ["Other cameras."]}
        drawn = {}
        for split, image_ids in ids.items():
            rows, counts, outcomes, at_thresholds = [], [], [], None
            for image_id in image_ids:
                predicted = LABELS.copy()
                predicted[: 20 + 2 * number if image_id == image_ids[-1] else 5 + 2 * number] = 0
                counts.append(confusion(LABELS, predicted, 3))
                known = counts[-1].ravel().tolist() if split == "val" or test_truth else None
                outcomes.append(outcome(LABELS, predicted))
                scores = [0.75] * len(outcomes[-1].predicted)
                shares = None
                if number == 0:
                    watch = watched(predicted, len(names))
                    shares, own = encode_shares(watch.shares), watch.counts(LABELS)
                    at_thresholds = own if at_thresholds is None else at_thresholds + own
                predicted_png = encode_label_map(predicted)
                rows.append(dict(zip(PREDICTIONS.names, (image_id, predicted_png, scores, known, shares), strict=True)))
            if at_thresholds and (split == "val" or test_truth):
                drawn[split] = curves(at_thresholds, names) | {"calibration": [at_thresholds.confidence.curve(1.0)]}
            write_table(root / "predictions" / name / "7" / f"{split}.parquet", PREDICTIONS, rows)
            if split == "test" and not test_truth:
                metrics |= {"test": None, "test_not_scored": "none of the 3 test images has pixel truth"}
            else:
                scores = summarise(np.array(counts)[:, None], names, BOOTSTRAP) | {"images_without_truth": 0}
                defects = summarise_defects(np.array([[counts_of(one)] for one in outcomes]), BOOTSTRAP)
                found = [detected(one.true, one.predicted, [0.75] * len(one.predicted)) for one in outcomes]
                metrics[split] = scores | {"defects": defects | average_precision(found, names)}
        write_sealed(root / "predictions" / name / "scores.json", metrics)
        write_sealed(root / "predictions" / name / "curves.json", drawn)
        trained = root / "data" / "curves" / name / "7"
        trained.mkdir(parents=True)
        (trained / "loss.csv").write_text("epoch,loss,lr\n1,0.5,0.1\n2,0.25,0.1\n")
        (trained / "val.csv").write_text("epoch,val_miou_anom\n1,\n2,0.125\n")
        (trained / "method.csv").write_text("epoch,corrected_share\n1,0.0\n2,0.03\n")
    (root / "metrics").mkdir(exist_ok=True)
    write_sealed(root / "metrics/rasterize.json", {"val": {"not_scored": "no truth"}})
    (root / "params.yaml").write_text(
        f"report: {{images: 4, bootstrap: {{samples: 200, seed: 1}}}}\nseeds: [7]\nrows: [{', '.join(runs)}]\n"
        "runs: {worst: {supervision: {method: truth}}}\n"
    )


def run(root: Path, out: str = "report") -> tuple[str, dict]:
    report.main(
        tables=root / "tables",
        masks=root / "masks",
        truth=root / "truth",
        predictions=root / "predictions",
        teacher=root / "metrics/rasterize.json",
        curves=root / "data/curves",
        out=root / out,
        summary_out=root / "metrics" / "summary.json",
        plots=root / "metrics/plots",
        params=root / "params.yaml",
    )
    return (root / out / "index.html").read_text(), json.loads((root / "metrics" / "summary.json").read_text())


class Tables(HTMLParser):
    """The tables of a page: caption -> its rows as lists of cell texts, spaces collapsed."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self._caption, self._into, self._pending = "", None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows[self._caption].append([])
        if tag in ("caption", "th", "td"):
            self._into, self._pending = tag, []

    def handle_data(self, data):
        self._pending.append(data)

    def handle_endtag(self, tag):
        if tag != self._into:
            return
        words = " ".join("".join(self._pending).split())
        if tag == "caption":
            self._caption = words
            self.rows[words] = []
        else:
            self.rows[self._caption][-1].append(words)
        self._into = None


def table_row(text: str, caption: str, name: str) -> list[str]:
    """Cells of the row `name` in the first table whose caption starts with `caption`."""
    rows = next(rows for key, rows in Tables(text).rows.items() if key.startswith(caption))
    return next(row for row in rows if row[0] == name)[1:]


def section(text: str, anchor: str) -> str:
    return text.split(f'<section id="{anchor}"')[1].split("</section>")[0]
