"""The report: what it says, what it draws, and that it makes nothing up. How it behaves in a browser: test_page.py."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stages import report
from stages.common.errors import UserError
from stages.data.tables import (
    BOXES,
    IMAGES,
    TRUTH,
    Dataset,
    encode_label_map,
    write_dataset,
    write_table,
)
from stages.evaluation.average_precision import average_precision, detected
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.defect_metrics import counts_of, outcome, summarise_defects
from stages.evaluation.predictions import Prediction, write_predictions
from stages.evaluation.summary import Difference, adjusted_for_all, paired_differences, summarise
from stages.masks.shards import MASKS
from stages.metrics.scores import confusion
from stages.reporting import published
from stages.reporting.agreement import agreement
from stages.reporting.cases import shares, spread, worst_first
from stages.reporting.charts import curve_chart, scores_chart
from stages.reporting.corrections import KINDS
from stages.reporting.defect_tables import corrections_table
from stages.reporting.defects import UNITS
from stages.reporting.overlays import Case, colour_of, draw, look
from stages.reporting.pictures import VIEW_BYTES, picture, view
from stages.reporting.table import Cell, cell, tree_table
from stages.reporting.zoom import Window, window_on

NAMES = ("dirt", "damage")
SIZE_HW = (40, 64)
BOOTSTRAP = BootstrapParams(samples=200, seed=1)
LABELS = np.zeros(SIZE_HW, dtype=np.uint8)
LABELS[5:15, 10:30] = 1
LABELS[20:30, 10:40] = 2


def build(
    root: Path,
    test_truth: bool = True,
    runs: tuple[str, ...] = ("full", "worse"),
    images: int = 3,
    names: tuple[str, ...] = NAMES,
    stem: str = "p",
) -> None:
    """Inputs of the report: `full` predicts exactly, but for its last image, and each further run one row less."""
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
        write_table(root / "masks" / split / "label_maps/00000.parquet", MASKS, rows)
        write_table(root / "tables" / split / "images.parquet", IMAGES, [])
        box = {"box_id": f"{image_ids[0]}:1", "image_id": image_ids[0], "class_id": 0, "source": "x.txt", "line": 1}
        write_table(root / "tables" / split / "boxes.parquet", BOXES, [{**box, "x1": 9.0, "y1": 5, "x2": 31, "y2": 15}])
        truth = {"height": SIZE_HW[0], "width": SIZE_HW[1], "mask_png": encode_label_map(LABELS)}
        known = image_ids if split == "test" and test_truth else []
        write_table(root / "truth" / f"{split}.parquet", TRUTH, [{"image_id": key, **truth} for key in known])
    for number, name in enumerate(runs):
        metrics: dict[str, object] = {"resolution": "native", "seeds": [7]}
        for split, image_ids in ids.items():
            rows, counts, outcomes = [], [], []
            for image_id in image_ids:
                predicted = LABELS.copy()
                predicted[: 20 + 2 * number if image_id == image_ids[-1] else 5 + 2 * number] = 0
                counts.append(confusion(LABELS, predicted, 3))
                known = counts[-1].ravel().tolist() if split == "val" or test_truth else None
                outcomes.append(outcome(LABELS, predicted))
                scores = [0.75] * len(outcomes[-1].predicted)
                rows.append(Prediction(image_id, encode_label_map(predicted), scores, known))
            write_predictions(root / "predictions" / name / "7" / f"{split}.parquet", rows)
            if split == "test" and not test_truth:
                metrics |= {"test": None, "test_not_scored": "none of the 3 test images has pixel truth"}
            else:
                scores = summarise(np.array(counts)[:, None], names, BOOTSTRAP) | {"images_without_truth": 0}
                defects = summarise_defects(np.array([[counts_of(one)] for one in outcomes]), BOOTSTRAP)
                found = [detected(one.true, one.predicted, [0.75] * len(one.predicted)) for one in outcomes]
                metrics[split] = scores | {"defects": defects | average_precision(found, names)}
        (root / "predictions" / name / "scores.json").write_text(json.dumps(metrics))
        curves = root / "metrics" / "curves" / name / "7"
        curves.mkdir(parents=True)
        (curves / "loss.csv").write_text("epoch,loss,lr\n1,0.5,0.1\n2,0.25,0.1\n")
        (curves / "val.csv").write_text("epoch,val_miou_anom\n1,\n2,0.125\n")
        (curves / "corrected.csv").write_text("epoch,corrected_share\n1,0.0\n2,0.03\n")
    (root / "metrics/rasterize.json").write_text(json.dumps({"val": {"not_scored": "no truth"}}))
    (root / "params.yaml").write_text(
        f"report: {{overlays: 4, bootstrap: {{samples: 200, seed: 1}}}}\nseeds: [7]\nrows: [{', '.join(runs)}]\n"
    )


def run(root: Path, out: str = "report") -> tuple[str, dict]:
    report.main(
        tables=root / "tables",
        masks=root / "masks",
        truth=root / "truth",
        predictions=root / "predictions",
        teacher=root / "metrics/rasterize.json",
        curves=root / "metrics/curves",
        out=root / out,
        summary_out=root / "metrics" / "summary.json",
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


def test_every_run_stands_in_the_tables_with_its_scores_and_interval(tmp_path):
    build(tmp_path)
    text, summary = run(tmp_path)
    for name in ("full", "worse"):
        scores = json.loads((tmp_path / "predictions" / name / "scores.json").read_text())["test"]
        shown = table_row(text, "Test: every run", name)[3]
        assert shown == f"{scores['iou_bin']:.3f} [{scores['iou_bin_low']:.3f}, {scores['iou_bin_high']:.3f}]"
        assert summary[name]["test_iou_bin"] == scores["iou_bin"]
    assert list(summary["full"]) == [
        "val_miou_anom",
        "test_miou_anom",
        "test_iou_bin",
        "test_recall_bin",
        "test_precision_bin",
        "test_recall_defects_iou10",
        "test_ap50",
    ]


def test_published_figures_stand_beside_ours_and_are_called_incomparable(tmp_path):
    build(tmp_path)
    text, _ = run(tmp_path)
    test_table = section(text, "test").split('<tbody class="published">')[1].split("</tbody>")[0]
    assert "not comparable" in test_table
    for figure in ("0.7661", "0.6523", "0.7674", "0.6226", "0.5427", "0.5331", "0.5312"):
        assert figure in test_table
    assert "0.5093" in section(text, "val").split('<tbody class="published">')[1]


def test_published_figures_keep_the_identities_that_they_must():
    for row in published.TEST.values():
        iou = float(row["iou_bin"])
        assert float(row["f1_anom"]) == pytest.approx(2 * iou / (1 + iou), abs=2e-4)
        if "recall_bin" in row:
            recall, precision = float(row["recall_bin"]), float(row["precision_bin"].split()[0])
            assert 1 / (1 / recall + 1 / precision - 1) == pytest.approx(iou, abs=1e-3)


def test_differences_from_the_first_run_are_paired_and_corrected_for_their_number(tmp_path):
    build(tmp_path, runs=("full", "worse", "worst"))
    text, _ = run(tmp_path)
    words = table_row(text, "Each run minus full", "worse")[0].replace("*", "").translate(str.maketrans("[],", "   "))
    point, low, high, p = (float(part) for part in words.replace("p =", "").split())
    assert low <= point <= high < 0
    # six comparisons of 200 resamples each: the least p is 2 / 201, times six
    assert p == pytest.approx(6 * 2 / 201, abs=1e-3)
    assert "for all 6 comparisons" in section(text, "differences")
    assert "no star is possible" in section(text, "differences")
    assert "*" not in table_row(text, "Each run minus full", "worse")[0]


def test_a_difference_that_survives_the_correction_has_a_star(tmp_path):
    build(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("samples: 200", "samples: 2000"))
    text, _ = run(tmp_path)
    assert "The least corrected p that 2,000 resamples can tell here is 0.003" in section(text, "differences")
    assert "*" in table_row(text, "Each run minus full", "worse")[0]


def test_defects_stand_in_the_tables_of_the_teacher_and_every_run(tmp_path):
    build(tmp_path)
    text, summary = run(tmp_path)
    scores = json.loads((tmp_path / "predictions/worse/scores.json").read_text())["test"]["defects"]
    shown = table_row(text, "Defects found and false alarms", "worse")
    assert shown[0].startswith(f"{scores['recall_defects_iou10']:.3f} [{scores['recall_defects_iou10_low']:.3f}")
    assert shown[5:] == [f"{scores[key]:.3f}" for key in ("ap10", "ap50", "ap")]
    assert summary["worse"]["test_recall_defects_iou10"] == scores["recall_defects_iou10"]
    assert table_row(text, "Defects found and false alarms", "the teacher")[0].startswith("1.000")
    assert table_row(text, "Defects found and false alarms", "the teacher")[5:] == ["–"] * 3
    assert table_row(text, "Share of the defects found", "defects")[0] == "6"
    assert table_row(text, "AP50 by class", "full") == [
        f"{scores_of(tmp_path, 'full')['ap50_by_class'][name]:.3f}" for name in NAMES
    ]


def scores_of(root: Path, run: str) -> dict:
    return json.loads((root / "predictions" / run / "scores.json").read_text())["test"]["defects"]


def test_what_runs_make_of_the_teachers_errors_is_counted_against_truth(tmp_path):
    build(tmp_path)
    # The teacher is right but for the first image, where it misses `damage` and invents four pixels of `dirt`.
    path = tmp_path / "masks/test/label_maps/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    told = np.where(LABELS == 2, 0, LABELS).astype(np.uint8)
    told[36, 60:64] = 1
    rows[0]["label_map"]["bytes"] = encode_label_map(told)
    pq.write_table(pa.Table.from_pylist(rows, schema=MASKS), path)
    text, _ = run(tmp_path)
    rescued, lost, dropped, added = table_row(text, "What each run made of the teacher's errors", "full")
    assert rescued == "100.0% [100.0, 100.0] of 300"
    assert lost.startswith("16.7%")  # 200 of 1,200 pixels: the dirt of the last image
    assert dropped == "100.0% [100.0, 100.0] of 4"
    assert added == "– none"


def test_numbers_of_pixels_are_whole_or_means_over_seeds_with_one_decimal():
    one = {"share": 0.5, "low": 0.25, "high": 0.75}
    kinds = dict(zip(KINDS, ({**one, "whole": whole} for whole in (9124, 12581 + 1 / 3, 507.96, 0.25)), strict=True))
    table = corrections_table("", {"full": {unit: kinds for unit in UNITS}})
    shown = [cell.interval for cell in table.bodies[0].rows[0][1]]
    assert shown == [f"[25.0, 75.0] of {whole}" for whole in ("9,124", "12,581.3", "508", "0.2")]


def test_without_truth_nothing_is_made_up(tmp_path):
    build(tmp_path, test_truth=False)
    text, summary = run(tmp_path)
    assert "<li>test: none of the 3 test images has pixel truth" in section(text, "not-scored")
    assert table_row(text, "Test: every run", "full") == ["not scored"] * 6
    assert 'id="differences"' not in text
    assert "no test image has pixel truth" in section(text, "defects")
    assert {key: value for key, value in summary["full"].items() if key.startswith("test")} == dict.fromkeys(
        (
            "test_miou_anom",
            "test_iou_bin",
            "test_recall_bin",
            "test_precision_bin",
            "test_recall_defects_iou10",
            "test_ap50",
        )
    )
    assert 'id="corrections"' not in text
    # The images are still shown: what the student says about them is worth seeing.
    assert (tmp_path / "report/overlays/test-01.png").exists()
    assert text.count('data-split="test"') == 3
    assert "(no truth)" in section(text, "images")


def test_the_worst_image_comes_first_and_pictures_are_as_many_as_asked(tmp_path):
    build(tmp_path)
    text, _ = run(tmp_path)
    pictures = sorted(path.name for path in (tmp_path / "report/overlays").iterdir())
    assert pictures == ["test-01.png", "test-02.png", "test-03.png", "val-01.png"]
    assert re.findall(r'<figure class="picture".*? data-title="(.*?)"', text)[0] == "test/p2"
    assert text.count('<figure class="picture"') == 4


def test_a_rerun_writes_the_same_bytes(tmp_path):
    build(tmp_path)
    run(tmp_path, "first")
    run(tmp_path, "second")
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in files)


def test_the_teachers_own_scores_are_shown(tmp_path):
    build(tmp_path)
    teacher = {"val": {"teacher": {"iou_bin": 0.625, "iou_bin_low": 0.5, "iou_bin_high": 0.75}}, "test": None}
    (tmp_path / "metrics/rasterize.json").write_text(json.dumps(teacher))
    text, _ = run(tmp_path)
    assert table_row(text, "The teacher's pseudo-masks", "IoU_bin") == ["0.625 [0.500, 0.750]"]


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "predictions/worse/scores.json").unlink()
    with pytest.raises(UserError, match=r"worse/scores\.json.*evaluate every run"):
        run(tmp_path)


def test_a_curve_that_is_not_there_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "metrics/curves/worse/7/val.csv").write_text("epoch,val_iou\n1,0.5\n")
    with pytest.raises(UserError, match=r"worse/7/val\.csv: no readable curve with columns epoch and val_miou_anom"):
        run(tmp_path)


def test_where_each_training_ended_stands_in_a_table(tmp_path):
    build(tmp_path)
    ends = table_row(run(tmp_path)[0], "Where each training ended", "worse, seed 7")
    assert ends == ["2", "0.250", "0.125 epoch 2", "3.00%"]


def test_runs_scored_on_different_images_are_not_compared(tmp_path):
    build(tmp_path)
    path = tmp_path / "predictions/worse/7/test.parquet"
    write_predictions(path, [Prediction("test/other", encode_label_map(LABELS), [0.5, 0.5], [0] * 9)])
    with pytest.raises(UserError, match="scored on other images than full"):
        run(tmp_path)


def test_a_run_does_not_differ_from_itself():
    counts = np.random.default_rng(0).integers(0, 50, (9, 2, 3, 3))
    assert paired_differences(counts, counts, NAMES, ["iou_bin"], BOOTSTRAP) == {"iou_bin": Difference(0, 0, 0, 1)}


def test_pairing_sees_a_small_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(0)
    hits = generator.integers(10, 90, size=60)
    better, worse = np.zeros((2, 60, 1, 2, 2), dtype=np.int64)
    better[:, 0, 1, 1], better[:, 0, 1, 0] = hits + 2, 98 - hits
    worse[:, 0, 1, 1], worse[:, 0, 1, 0] = hits, 100 - hits
    point, low, high, p, _ = paired_differences(better, worse, ["crack"], ["iou_bin"], BOOTSTRAP)["iou_bin"]
    assert point == pytest.approx(0.02)
    assert 0 < low <= point <= high
    assert p == pytest.approx(2 / 201, abs=1e-6)
    apart = [summarise(counts, ["crack"], BOOTSTRAP) for counts in (better, worse)]
    assert apart[0]["iou_bin_low"] < apart[1]["iou_bin_high"]


def test_a_difference_between_seeds_widens_the_interval_and_pairing_takes_it_out():
    counts = np.zeros((30, 3, 2, 2), dtype=np.int64)
    for seed, found in enumerate((20, 50, 80)):
        counts[:, seed, 1, 1], counts[:, seed, 1, 0] = found, 100 - found
    scores = summarise(counts, ["crack"], BOOTSTRAP)
    assert scores["iou_bin"] == pytest.approx(0.5)
    assert scores["iou_bin_by_seed"] == pytest.approx([0.2, 0.5, 0.8])
    assert (scores["iou_bin_low"], scores["iou_bin_high"]) == (pytest.approx(0.2), pytest.approx(0.8))
    better = counts.copy()
    better[..., 1, 1] += 10
    better[..., 1, 0] -= 10
    difference = paired_differences(better, counts, ["crack"], ["iou_bin"], BOOTSTRAP)["iou_bin"]
    assert difference[:3] == pytest.approx((0.1, 0.1, 0.1))


def test_a_figure_undefined_for_one_seed_is_undefined():
    counts = np.zeros((4, 2, 2, 2), dtype=np.int64)
    counts[:, :, 1, 0] = 5  # nothing is found, so there is no precision
    counts[:, 1, 1, 1] = 5
    scores = summarise(counts, ["crack"], BOOTSTRAP)
    assert scores["precision_bin"] is scores["precision_bin_low"] is None
    assert scores["iou_bin_by_seed"] == [0, 0.5]


def test_every_figure_of_every_run_is_a_comparison_and_an_undefined_one_is_none():
    one, undefined = Difference(0.1, 0.0, 0.2, 0.01), Difference(None, None, None, None)
    adjusted = adjusted_for_all({"a": {"x": one, "y": undefined}, "b": {"x": one._replace(p=0.2), "y": undefined}})
    assert adjusted["a"]["x"].adjusted == pytest.approx(0.02)
    assert adjusted["b"]["x"].adjusted == pytest.approx(0.2)
    assert adjusted["a"]["y"] == undefined


def test_the_report_says_how_many_seeds_it_averages(tmp_path):
    build(tmp_path)
    assert "Every run was trained once" in run(tmp_path)[0]
    for name in ("full", "worse"):
        folder = tmp_path / "predictions" / name
        shutil.copytree(folder / "7", folder / "8")
        shutil.copytree(tmp_path / "metrics/curves" / name / "7", tmp_path / "metrics/curves" / name / "8")
        scores = json.loads((folder / "scores.json").read_text()) | {"seeds": [7, 8]}
        (folder / "scores.json").write_text(json.dumps(scores))
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [7]", "seeds: [7, 8]"))
    text, _ = run(tmp_path)
    assert "the mean over 2 trainings with different seeds (7, 8)" in text
    assert table_row(text, "Where each training ended", "full, seed 8")


def test_worst_first_orders_by_error_then_by_wrong_pixels_with_clean_images_last():
    missed_small, missed_large = [[90, 0], [3, 0]], [[80, 0], [20, 0]]
    half, clean, alarm = [[80, 5], [0, 5]], [[99, 0], [0, 0]], [[98, 1], [0, 0]]
    counts = np.array([clean, half, missed_small, missed_large, alarm])
    assert worst_first(["clean", "half", "small", "large", "alarm"], counts) == [
        "large",
        "small",
        "alarm",
        "half",
        "clean",
    ]


@given(length=st.integers(0, 60), count=st.integers(0, 24))
def test_a_spread_keeps_order_starts_at_the_front_and_reaches_the_end(length, count):
    items = [f"{index:02d}" for index in range(length)]
    chosen = spread(items, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(length, count)
    assert chosen[: len(chosen) // 2] == items[: len(chosen) // 2]
    if 2 <= count <= length:
        assert chosen[-1] == items[-1]


@given(test=st.integers(0, 40), val=st.integers(0, 40), total=st.integers(0, 24))
def test_shares_use_every_picture_that_there_is(test, val, total):
    chosen = shares({"test": test, "val": val}, total)
    assert 0 <= chosen["test"] <= test
    assert 0 <= chosen["val"] <= val
    assert sum(chosen.values()) == min(total, test + val)


def test_one_pixel_of_defect_survives_a_large_shrink():
    labels = np.zeros((900, 2400), dtype=np.uint8)
    labels[631, 1999] = 2
    view = np.asarray(look(np.full((900, 2400, 3), 120, np.uint8), labels, Window(0, 0, 2400, 900), (400, 150)))
    assert (view == colour_of(2)).all(axis=-1).any()


@given(labels=arrays(np.uint8, (30, 70), elements=st.sampled_from([0] * 40 + [1, 2, 255])))
def test_the_enlarged_window_lies_inside_and_shows_a_wrong_pixel_where_there_is_one(labels):
    window = window_on(labels, np.zeros_like(labels), [])
    assert 0 <= window.left <= window.left + window.width <= 70
    assert 0 <= window.top <= window.top + window.height <= 30
    defect = (labels > 0) & (labels != 255)
    assert window.cut(defect).any() == defect.any()


def test_the_window_goes_where_most_is_wrong():
    truth = np.zeros((200, 400), dtype=np.uint8)
    truth[10:60, 10:100] = 1
    truth[150:156, 300:320] = 2
    predicted = truth.copy()
    predicted[150:156, 300:320] = 0
    window = window_on(truth, predicted, [])
    assert window.left <= 300 < 320 <= window.left + window.width
    assert window.left > 100


def test_a_panel_without_truth_says_so_and_still_has_four_columns():
    with_truth, without = (
        draw(case_of(truth, boxes=[(0, (10.0, 5.0, 30.0, 15.0))]), NAMES, "full") for truth in (LABELS, None)
    )
    assert with_truth.size == without.size
    fourth = [np.asarray(image)[:, image.width * 3 // 4 + 4 :] for image in (with_truth, without)]
    assert (fourth[0] == colour_of(2)).all(axis=-1).any()
    assert not (fourth[1] == colour_of(2)).all(axis=-1).any()


def test_a_long_name_leaves_room_for_the_scores():
    sheets = [np.asarray(draw(case_of(LABELS, title), NAMES, "full")) for title in ("test/" + "long/" * 90, "")]
    note = [sheet[:34, -80:] for sheet in sheets]
    np.testing.assert_array_equal(note[0], note[1])
    assert (sheets[0][:34] != sheets[1][:34]).any()


def test_a_chart_says_what_was_not_scored_and_is_well_formed_whatever_the_names():
    scores = summarise(np.array([[[[9, 1], [2, 5]]], [[[9, 0], [3, 4]]]]), ["crack"], BOOTSTRAP)
    chart = ElementTree.fromstring(scores_chart({'<full> & "more"': {"test": None, "val": scores}}))
    assert [text.text for text in chart.iter("text")][-3:] == [
        '<full> & "more"',
        "not scored",
        f"{scores['iou_bin']:.3f}",
    ]
    assert len(list(chart.iter("circle"))) == 0
    assert len(list(chart.iter("rect"))) == 1


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    first=st.integers(1, 5),
)
def test_a_curve_stays_inside_its_chart(values, first):
    points = [(first + step, value) for step, value in enumerate(values)]
    chart = ElementTree.fromstring(curve_chart("loss", [(0, points), (9, [])]))
    (path,) = chart.iter("path")
    drawn = [tuple(map(float, pair.split())) for pair in path.attrib["d"][1:].split("L")]
    assert len(drawn) == len(points)
    assert all(50 <= x <= 410 and 10 <= y <= 200 for x, y in drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)


def case_of(truth: np.ndarray | None, title: str = "test/p0", boxes: list | None = None) -> Case:
    photo = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    return Case(title, agreement(LABELS, LABELS, truth, len(NAMES)), photo, boxes or [], LABELS, LABELS, truth)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_layer_is_transparent_but_for_the_defects_and_lies_where_they_are():
    shown = picture(case_of(LABELS, boxes=[(1, (8.0, 18.0, 42.0, 32.0))]), "test", NAMES)
    assert list(shown.whole.layers) == ["teacher", "student", "truth"]
    assert decoded(shown.whole.photo).size == SIZE_HW[::-1]
    layer = np.asarray(decoded(shown.whole.layers["truth"]).convert("RGBA"))
    scale = layer.shape[1] / SIZE_HW[1]
    assert layer.shape[:2] == (shown.whole.height, shown.whole.width) == (500, 800)
    middle = layer[round(25 * scale), round(25 * scale)]
    assert tuple(middle[:3]) == colour_of(2)
    assert 0 < middle[3] < 255
    assert layer[round(35 * scale), round(55 * scale), 3] == 0
    assert shown.whole.boxes[0][:4] == (8 * scale, 18 * scale, 34 * scale, 14 * scale)
    assert dict(shown.legend) == {"dirt": "#ffb000", "damage": "#ec008c"}
    assert "truth" not in picture(case_of(None), "test", NAMES).whole.layers


def test_a_view_stays_under_its_bound_whatever_it_shows():
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (700, 1100, 3), dtype=np.uint8)
    labels = generator.integers(0, 3, (700, 1100), dtype=np.uint8)
    made = view(Case("", agreement(labels, labels, None, 2), noise, [], labels, labels, None), Window(0, 0, 1100, 700))
    assert sum(len(uri) for uri in (made.photo, *made.layers.values())) <= VIEW_BYTES * 4 / 3 + 100
    assert made.width < 800
    assert made.width / made.height == pytest.approx(11 / 7, rel=0.02)


def test_the_error_is_against_truth_where_there_is_any_else_against_the_teacher():
    teacher, student, truth = (np.zeros((4, 6), dtype=np.uint8) for _ in range(3))
    truth[0, :4], teacher[0, :2], student[0, 1:5] = 1, 1, 2
    with_truth = agreement(teacher, student, truth, 2)
    assert with_truth == (True, 3 / 5, 2 / 4, 1, 1)
    assert with_truth.error == pytest.approx(0.4)
    without = agreement(teacher, student, None, 2)
    assert without == (False, 1 / 5, None, 1, 3)
    assert agreement(truth * 0, truth * 0, None, 2).error is None


def test_undefined_figures_are_dashes_and_groups_keep_their_names():
    assert cell(None) == Cell("–")
    assert cell(0.5) == Cell("0.500")
    assert cell(-0.25, -0.5, 0.125, sign="+") == Cell("-0.250", "[-0.500, +0.125]")
    tree = tree_table("", {"val": {"images": 7, "per_box_by_class": {"a.b": {"boxes": 3}}}, "test": {"images": 8}})
    assert tree.columns == ["figure", "val", "test"]
    assert tree.bodies[0].rows == [("images", [Cell("7"), Cell("8")])]
    assert tree.bodies[1].heading == "The same, for boxes of class a.b"
    assert tree.bodies[1].rows == [("boxes", [Cell("3"), Cell("–")])]
