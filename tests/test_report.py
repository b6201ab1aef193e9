"""The report: what its page says, and that it shows nothing that was not measured. In a browser: test_page.py."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.common.errors import UserError
from stages.common.params import read_sealed, write_digests, write_sealed
from stages.data.tables import encode_label_map, write_table
from stages.evaluation.predictions import PREDICTIONS
from stages.masks.shards import LABEL_MAPS, MASKS, shard_path
from stages.reporting import published
from stages.reporting.overview import summary
from tests.support.report_inputs import LABELS, NAMES, build, run, section, table_row


def test_every_run_stands_in_the_tables_with_its_scores_and_interval(tmp_path):
    build(tmp_path)
    text, summary = run(tmp_path)
    for name in ("full", "worse"):
        scores = json.loads((tmp_path / "predictions" / name / "scores.json").read_text())["test"]
        shown, mark = table_row(text, "Test: every run", name)[0], " ▼" * (name == "worse")
        assert shown == f"{scores['iou_bin']:.3f}{mark} [{scores['iou_bin_low']:.3f}, {scores['iou_bin_high']:.3f}]"
        assert summary["test_iou_bin"][name] == scores["iou_bin"]
    assert list(summary) == [
        "test_iou_bin",
        "test_recall_bin",
        "test_precision_bin",
        "val_iou_bin",
        "test_miou_anom",
        "test_recall_defects_iou10",
        "test_ap50",
        "val_miou_anom",
    ]


@pytest.mark.parametrize(("runs", "keys"), [(1, 8), (5, 8), (6, 6), (13, 3), (40, 1), (90, 1)])
def test_the_summary_has_at_most_forty_values_the_important_ones(runs, keys):
    split = {"iou_bin": 0.5, "recall_bin": 0.25, "defects": {"ap50": 0.125}}
    few = summary({f"run{number}": {"test": split, "val": None} for number in range(runs)})
    assert list(few)[:1] == ["test_iou_bin"] and len(few) == keys
    assert sum(len(values) for values in few.values()) == min(40, runs) * keys
    assert few["test_iou_bin"]["run0"] == 0.5
    assert few.get("test_ap50", {"run0": 0.125})["run0"] == 0.125
    assert few.get("val_iou_bin", {"run0": None})["run0"] is None


def test_the_plots_hold_every_training_in_one_file_per_quantity(tmp_path):
    build(tmp_path)
    run(tmp_path)
    assert (tmp_path / "metrics/plots/loss.csv").read_text().splitlines() == [
        "run,seed,epoch,loss",
        "full,7,1,0.5",
        "full,7,2,0.25",
        "worse,7,1,0.5",
        "worse,7,2,0.25",
    ]
    assert "worse,7,2,0.125" in (tmp_path / "metrics/plots/val_miou_anom.csv").read_text()


def test_the_headline_stands_beside_what_filled_boxes_and_the_teacher_reach(tmp_path):
    build(tmp_path)
    own = {"iou_bin": 0.727011, "recall_bin": 0.858866, "precision_bin": 0.825648, "miou_anom": 0.718734}
    teacher = {"test": {"pseudo_masks": own, "filled_boxes": {"iou_bin": 0.281379}}}
    write_sealed(tmp_path / "metrics/rasterize.json", teacher)
    text, _ = run(tmp_path)
    lead = " ".join(text.split('<p class="lead">')[1].split("</p>")[0].split())
    assert "For comparison: SAM teacher, given the boxes: 0.727; every box filled: 0.281." in lead
    assert table_row(text, "Test: every run", "SAM teacher, given the boxes") == [
        "0.727",
        "0.859",
        "0.826",
        "0.719",
        "–",
        "–",
    ]
    for path in (tmp_path / "predictions").glob("*/scores.json"):
        write_sealed(path, read_sealed(path, "") | {"resolution": "stretched_518"})
    assert "For comparison" not in run(tmp_path)[0]


def test_published_scores_stand_in_a_section_of_their_own_and_are_called_incomparable(tmp_path):
    build(tmp_path)
    text, _ = run(tmp_path)
    own = section(text, "published")
    assert "not comparable" in own
    for score in ("0.7661", "0.6523", "0.7674", "0.6226", "0.5427", "0.5331", "0.5312", "0.5093"):
        assert score in own
        assert score not in section(text, "test") + section(text, "val")


def test_published_scores_are_those_of_the_page_on_the_paper():
    text = (Path(published.__file__).parents[2] / "docs/paper.md").read_text()
    for row in (*published.TEST.values(), *published.VAL.values()):
        assert all(f"| {score} |" in text for score in row.values())


def test_published_scores_keep_the_identities_that_they_must():
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
    assert text.count("worst<span title=") > 3 and "worse<span title=" not in text, (
        "a run on true masks is marked in every table"
    )
    assert "‡ Learned from masks that people drew" in text
    assert re.search(r"<text[^>]*>worst ‡</text>", text), "in the chart, too"
    assert "*" not in table_row(text, "Each run minus full", "worse")[0]


def test_a_difference_that_survives_the_correction_has_a_star(tmp_path):
    build(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("samples: 200", "samples: 2000"))
    text, _ = run(tmp_path)
    assert "The least corrected p that 2,000 resamples can give here is 0.003" in section(text, "differences")
    assert "*" in table_row(text, "Each run minus full", "worse")[0]


def test_defects_stand_in_the_tables_of_the_teacher_and_every_run(tmp_path):
    build(tmp_path)
    text, summary = run(tmp_path)
    scores = json.loads((tmp_path / "predictions/worse/scores.json").read_text())["test"]["defects"]
    shown = table_row(text, "Defects detected and false positives", "worse")
    assert shown[0].startswith(f"{scores['recall_defects_iou10']:.3f} [{scores['recall_defects_iou10_low']:.3f}")
    assert shown[5:] == [f"{scores[key]:.3f}" for key in ("ap10", "ap50", "ap")]
    assert summary["test_recall_defects_iou10"]["worse"] == scores["recall_defects_iou10"]
    assert table_row(text, "Defects detected and false positives", "SAM teacher")[0].startswith("1.000")
    assert table_row(text, "Defects detected and false positives", "SAM teacher")[5:] == ["–"] * 3
    assert table_row(text, "Share of the defects detected", "defects")[0] == "6"
    assert table_row(text, "AP50 by class", "full") == [
        f"{scores_of(tmp_path, 'full')['ap50_by_class'][name]:.3f}" for name in NAMES
    ]


def scores_of(root: Path, run: str) -> dict:
    return json.loads((root / "predictions" / run / "scores.json").read_text())["test"]["defects"]


def test_the_temperature_stands_beside_the_masks_that_it_was_fitted_on(tmp_path):
    build(tmp_path)
    text = run(tmp_path)[0]
    assert "without → with the temperature (1, fitted on SAM&#39;s masks of val): 0.500 → 0.375." in text


def test_what_runs_make_of_the_teachers_errors_is_counted_against_truth(tmp_path):
    build(tmp_path)
    # The teacher is right but for the first image, where it lacks `damage` and adds four pixels of `dirt`.
    path = shard_path(tmp_path / "masks/test", LABEL_MAPS, 0)
    rows = pq.read_table(path).to_pylist()
    pseudo = np.where(LABELS == 2, 0, LABELS).astype(np.uint8)
    pseudo[36, 60:64] = 1
    rows[0]["label_map"]["bytes"] = encode_label_map(pseudo)
    write_table(path, MASKS, rows)
    text, _ = run(tmp_path)
    recovered, lost, removed, added = table_row(text, "What each run made of the SAM teacher's errors", "full")
    assert recovered == "100.0% [100.0, 100.0] of 300"
    assert lost.startswith("16.7%")  # 200 of 1,200 pixels: the dirt of the last image
    assert removed == "100.0% [100.0, 100.0] of 4"
    assert added == "– none"


def test_without_truth_nothing_is_made_up(tmp_path):
    build(tmp_path, test_truth=False)
    text, summary = run(tmp_path)
    assert "<li>test: none of the 3 test images has pixel truth" in section(text, "not-scored")
    assert table_row(text, "Test: every run", "full") == ["not scored"] * 6
    assert 'id="differences"' not in text
    assert "no test image has pixel truth" in section(text, "defects")
    assert {value for key, own in summary.items() if key.startswith("test") for value in own.values()} == {None}
    assert 'id="corrections"' not in text
    # The images are still shown, with the student's prediction.
    assert text.count('data-split="test"') == 3
    assert "(no truth)" in section(text, "images")


def test_the_worst_image_comes_first_and_pictures_are_as_many_as_asked(tmp_path):
    build(tmp_path)
    text, _ = run(tmp_path)
    titles = re.findall(r'<figure class="picture".*? data-title="(.*?)"', text)
    assert titles[0] == "test/p2"
    assert [title.split("/")[0] for title in titles] == ["test"] * 3 + ["val"]
    assert text.count('<figure class="picture"') == 4


def test_a_rerun_writes_the_same_bytes(tmp_path):
    build(tmp_path)
    run(tmp_path, "first")
    run(tmp_path, "second")
    for folder in ("first", "second"):
        assert [path.name for path in (tmp_path / folder).rglob("*")] == ["index.html"]
    assert (tmp_path / "first/index.html").read_bytes() == (tmp_path / "second/index.html").read_bytes()


def test_the_teachers_own_scores_are_shown(tmp_path):
    build(tmp_path)
    val, test = {"images": 7, "pseudo_masks": {"iou_bin": 0.625}}, {"images": 8, "not_scored": "no truth"}
    write_sealed(tmp_path / "metrics/rasterize.json", {"val": val, "test": test})
    text, _ = run(tmp_path)
    assert table_row(text, "The pseudo-masks against truth", "images") == ["7", "8"]
    assert table_row(text, "The pseudo-masks against truth", "not scored") == ["–", "no truth"]
    assert table_row(text, "The pseudo-masks against truth", "IoU_bin") == ["0.625", "–"]


@pytest.mark.parametrize("name", ["metrics/rasterize.json", "predictions/full/curves.json"])
def test_a_changed_value_is_found(tmp_path, name):
    build(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace('"', '"x', 1))
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        run(tmp_path)


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "predictions/worse/scores.json").unlink()
    with pytest.raises(
        UserError, match=r"worse/scores\.json: not readable \(No such file or directory\); evaluate this run"
    ):
        run(tmp_path)


def test_a_missing_curve_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "data/curves/worse/7/val.csv").write_text("epoch,val_iou\n1,0.5\n")
    with pytest.raises(UserError, match=r"worse/7/val\.csv: no readable curve with columns epoch and val_miou_anom"):
        run(tmp_path)


def test_a_changed_curve_is_found(tmp_path):
    build(tmp_path)
    write_digests(tmp_path / "data/curves/full/7")  # as train does
    path = tmp_path / "data/curves/full/7/val.csv"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(UserError, match=r"full/7/val\.csv: missing or damaged"):
        run(tmp_path)


def test_the_curves_of_a_method_are_those_that_it_recorded(tmp_path):
    build(tmp_path)
    (tmp_path / "data/curves/full/7/method.csv").write_text("epoch\n1\n2\n")
    (tmp_path / "data/curves/worse/7/method.csv").write_text("epoch,own_share\n0,inf\n1,0.5\n2,\n")
    text, _ = run(tmp_path)
    captions = re.findall(r"<figcaption>(.*?)\.</figcaption>", section(text, "curves"))
    assert captions == ["Training loss", "mIoU_anom on val, against the pseudo-masks", "own_share"]
    assert table_row(text, "Last and best values", "full, seed 7") == ["2", "0.250", "0.125 epoch 2", "–"]


def test_where_each_training_ended_stands_in_a_table(tmp_path):
    build(tmp_path)
    ends = table_row(run(tmp_path)[0], "Last and best values", "worse, seed 7")
    assert ends == ["2", "0.250", "0.125 epoch 2", "3.00%"]


def test_runs_scored_on_different_images_are_not_compared(tmp_path):
    build(tmp_path)
    path = tmp_path / "predictions/worse/7/test.parquet"
    other = {"image_id": "test/other", "mask_png": encode_label_map(LABELS), "confusion": [0] * 9}
    write_table(path, PREDICTIONS, [other])
    with pytest.raises(UserError, match="scored on other images than full"):
        run(tmp_path)


def test_the_report_says_how_many_seeds_it_averages(tmp_path):
    build(tmp_path)
    assert "Every run was trained once" in run(tmp_path)[0]
    for name in ("full", "worse"):
        folder = tmp_path / "predictions" / name
        shutil.copytree(folder / "7", folder / "8")
        shutil.copytree(tmp_path / "data/curves" / name / "7", tmp_path / "data/curves" / name / "8")
        scores = read_sealed(folder / "scores.json", "") | {"seeds": [7, 8]}
        write_sealed(folder / "scores.json", scores)
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [7]", "seeds: [7, 8]"))
    text, _ = run(tmp_path)
    assert "the mean over 2 trainings with different seeds (7, 8)" in text
    assert table_row(text, "Last and best values", "full, seed 8")


def test_near_duplicates_stand_side_by_side_and_without_any_nothing_is_said(tmp_path):
    pairs = [(number, "val", f"images/val/p{number % 3}.png", "test", "images/test/p1.png") for number in range(26)]
    build(tmp_path, near=pairs)
    own = section(run(tmp_path)[0], "near")
    assert "26 pairs of images" in own
    assert "The 24 nearest are shown" in own
    assert own.count('src="data:image/jpeg;base64,') == 48
    assert "0 bits: val: images/val/p0.png, test: images/test/p1.png" in own
    assert "24 bits" not in own
    (tmp_path / "tables/near_duplicates.csv").write_text("distance,split,path,other_split,other_path\n")
    assert "near duplicates" not in run(tmp_path)[0].lower()


def test_a_missing_list_of_near_duplicates_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "tables/near_duplicates.csv").unlink()
    with pytest.raises(UserError, match=r"near_duplicates\.csv: not readable .* run the ingest stage"):
        run(tmp_path)
