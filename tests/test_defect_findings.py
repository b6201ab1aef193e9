"""Defects as the report shows them: groups, who detects which, and the images over which they are counted."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.data.tables import TRUTH, encode_label_map, write_table
from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.predictions import PREDICTIONS
from stages.reporting.aligned_maps import AlignedMaps, aligned_maps
from stages.reporting.corrections import KINDS
from stages.reporting.defect_findings import (
    SIZES_PX,
    TEACHER,
    UNITS,
    Defects,
    Group,
    Tally,
    by_class,
    by_size,
    corrections_of,
    false_positives_by_size,
    gather,
    tally,
)
from stages.reporting.defect_tables import corrections_table, false_positives_table, recall_table
from stages.reporting.score_tables import Cell
from tests.support.mask_shards import write_split

BOOTSTRAP = BootstrapParams(samples=200, seed=1)
EVERYTHING = "all"


def image_maps() -> AlignedMaps:
    """Three defects of 6, 6 and 120 px; one run of two seeds: one has the first by half and the last, one nothing."""
    truth = np.zeros((20, 40), dtype=np.uint8)
    truth[0, 0:6] = truth[3, 0:6] = 1
    truth[10:16, 10:30] = 2
    teacher = np.where(truth == 2, 2, 0).astype(np.uint8)
    teacher[0, 20:28] = 1
    student = teacher.copy()
    student[0, 0:3] = 2
    return AlignedMaps(truth, teacher, {"run": [student, np.zeros_like(truth)]})


def findings() -> Defects:
    return gather([image_maps()], ["run"], 2)


def everything(defects: Defects) -> Group:
    return Group(EVERYTHING, np.ones(len(defects.areas_px), dtype=bool))


def test_detected_partial_and_undetected_defects_are_counted_over_seeds_whatever_the_class():
    defects = findings()
    assert (defects.class_ids.tolist(), defects.areas_px.tolist()) == ([0, 0, 1], [6, 6, 120])
    assert defects.ious["run"].tolist() == [[0.5, 0, 1], [0, 0, 0]]
    assert tally(defects, "run", everything(defects)) == Tally(detected=2, partial=0, undetected=4)
    assert tally(defects, "run", everything(defects)).total == 6
    assert tally(defects, TEACHER, everything(defects)) == Tally(detected=1, partial=0, undetected=2)


def test_the_share_detected_is_at_either_iou_and_undefined_for_no_defect():
    counts = Tally(detected=1, partial=2, undetected=1)
    assert (counts.share(0.1), counts.share(0.5)) == (0.75, 0.25)
    assert Tally(0, 0, 0).share(0.1) is None


def test_false_positives_are_grouped_by_their_own_size_per_image_and_seed():
    defects = findings()
    assert false_positives_by_size(defects, TEACHER, 0.1) == [1, 0, 0]
    assert false_positives_by_size(defects, "run", 0.5) == [0.5, 0, 0]


@given(areas=st.lists(st.integers(1, 5000), max_size=40))
def test_every_defect_is_in_one_group_by_size_and_groups_ascend(areas):
    groups = by_size(np.array(areas, dtype=np.int64))
    assert len(groups) == len(SIZES_PX)
    assert sum(group.members.astype(int) for group in groups).tolist() == [1] * len(areas)
    limits = [np.array(areas)[group.members] for group in groups if group.members.any()]
    assert all(a.max() < b.min() for a, b in pairwise(limits))


def test_groups_by_size_have_the_limits_that_they_are_called_by():
    groups = by_size(np.array([1, 99, 100, 1000, 1001]))
    assert [group.title for group in groups] == ["under 100 px", "100 to 1,000 px", "over 1,000 px"]
    assert [group.members.sum() for group in groups] == [2, 2, 1]


def test_a_class_without_a_defect_is_a_dash_in_the_table():
    defects = findings()
    assert [group.members.sum() for group in by_class(defects, ("dirt", "damage", "rust"))] == [2, 1, 0]
    table = recall_table("", defects, ("dirt", "damage", "rust"))
    numbers, rows = table.bodies
    assert [cell.text for cell in numbers.rows[0][1]] == ["3", "2", "1", "0", "2", "1", "0"]
    teacher, run = (cells for _, cells in rows.rows)
    assert [name for name, _ in rows.rows] == [TEACHER, "run"]
    assert [cell.text for cell in teacher] == ["33.3%", "0.0%", "100.0%", "–", "0.0%", "100.0%", "–"]
    assert run[0] == Cell("33.3%", "33.3% at IoU 0.5")
    assert false_positives_table("", defects).bodies[0].rows[0][1][0] == Cell("1.00", "1.00 at IoU 0.5")


def test_what_became_of_the_teachers_errors_stands_in_pixels_and_in_defects():
    table = corrections_table("", corrections_of(findings(), BOOTSTRAP))
    assert [body.heading for body in table.bodies] == [f"in {unit}" for unit in UNITS]
    # of 12 false negative pixels one seed recovers 3; one seed removes the false positive, 8 pixels; nothing is added
    pixels = dict(table.bodies[0].rows)["run"]
    assert [cell.text for cell in pixels] == ["12.5%", "50.0%", "50.0%", "–"]
    assert pixels[0].interval.endswith("of 12")
    # one seed has no false positive at all: its share of them is undefined, and so is the mean
    assert [cell.text for cell in dict(table.bodies[1].rows)["run"]] == ["25.0%", "50.0%", "50.0%", "–"]


def test_without_a_defect_false_positives_are_still_counted():
    nothing = np.zeros((3, 5), np.uint8)
    false = nothing.copy()
    false[1, 1] = 1
    defects = gather([AlignedMaps(nothing, nothing, {"run": [false]})], ["run"], 1)
    assert defects.images == 1
    assert tally(defects, "run", everything(defects)) == Tally(0, 0, 0)
    assert false_positives_by_size(defects, "run", 0.5) == [1, 0, 0]
    assert recall_table("", defects, ("dirt",)).bodies[1].rows[1][1] == [Cell("–")] * 5
    assert gather([], ["run"], 1) is None


def test_numbers_of_pixels_are_whole_or_means_over_seeds_with_one_decimal():
    one = {"share": 0.5, "low": 0.25, "high": 0.75}
    kinds = dict(zip(KINDS, ({**one, "whole": whole} for whole in (9124, 12581 + 1 / 3, 507.96, 0.25)), strict=True))
    table = corrections_table("", {"full": {unit: kinds for unit in UNITS}})
    shown = [cell.interval for cell in table.bodies[0].rows[0][1]]
    assert shown == [f"[25.0, 75.0] of {whole}" for whole in ("9,124", "12,581.3", "508", "0.2")]


def write(
    root: Path, truth: dict[str, np.ndarray], teacher: dict[str, np.ndarray], runs: dict[str, dict[str, np.ndarray]]
) -> dict[str, Path]:
    """Files of a test split with the given label maps by image id."""
    size = {"height": 4, "width": 6}
    rows = [{"image_id": key, **size, "mask_png": encode_label_map(labels)} for key, labels in truth.items()]
    write_table(root / "truth/test.parquet", TRUTH, rows)
    image = {"path": "", "sha256": "", "exif_orientation": 1, **size, "label_status": "labelled", "n_boxes": 1}
    maps = {key: {"bytes": encode_label_map(labels), "path": None} for key, labels in teacher.items()}
    write_split(
        root / "masks/test", *([[{"image_id": key, **image, "label_map": png}], []] for key, png in maps.items())
    )
    for run, maps in runs.items():
        rows = [{"image_id": key, "mask_png": encode_label_map(labels)} for key, labels in maps.items()]
        write_table(root / f"predictions/{run}/0/test.parquet", PREDICTIONS, rows)
    return {"predictions": root / "predictions", "masks": root / "masks", "truth": root / "truth"}


def filled(value: int, size_hw: tuple[int, int] = (4, 6)) -> np.ndarray:
    return np.full(size_hw, value, dtype=np.uint8)


def test_images_with_truth_come_one_by_one_with_the_label_maps_of_teacher_and_runs(tmp_path):
    ids = ["a", "b", "c"]
    files = write(
        tmp_path,
        {key: filled(1) for key in ("a", "c")},
        {key: filled(number) for number, key in enumerate(ids)},
        {run: {key: filled(number * 2 % 3) for number, key in enumerate(ids)} for run in ("one", "two")},
    )
    found = list(aligned_maps("test", ["one", "two"], [0], **files))
    assert [(int(one.teacher[0, 0]), int(one.students["two"][0][0, 0])) for one in found] == [(0, 0), (2, 1)]
    assert [list(one.students) for one in found] == [["one", "two"]] * 2


def test_defects_are_regions_at_the_resolution_that_the_runs_were_scored_at(tmp_path):
    truth = filled(0)
    truth[:, :3] = 1
    stretched = filled(0, (8, 8))
    stretched[:, :4] = 1
    files = write(tmp_path, {"a": truth}, {"a": truth}, {"run": {"a": stretched}})
    (one,) = aligned_maps("test", ["run"], [0], **files)
    np.testing.assert_array_equal(one.truth, stretched)
    np.testing.assert_array_equal(one.teacher, stretched)


def test_a_run_without_an_image_of_the_truth_is_named(tmp_path):
    files = write(tmp_path, {"a": filled(1)}, {"a": filled(1)}, {"run": {"b": filled(1)}})
    with pytest.raises(UserError, match=r"run/0/test\.parquet: has no a, of which there is truth; run the evaluate"):
        list(aligned_maps("test", ["run"], [0], **files))


def test_runs_scored_at_two_resolutions_are_not_compared(tmp_path):
    maps = {"one": {"a": filled(1)}, "two": {"a": filled(1, (9, 9))}}
    files = write(tmp_path, {"a": filled(1)}, {"a": filled(1)}, maps)
    with pytest.raises(UserError, match=r"two/0/test\.parquet: was scored on 9 x 9 pixels of a, not 6 x 4 like one"):
        list(aligned_maps("test", ["one", "two"], [0], **files))
