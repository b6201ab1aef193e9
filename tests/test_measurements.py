"""Sizes of defects, on drawn shapes of known size, and scales in millimetres."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon2mask

from stages.common.errors import UserError
from stages.formats.csv_parquet import measured
from stages.formats.inputs import Source
from stages.formats.measured_defects import defects_of
from stages.formats.measurements import BAND, axes_of, lengths_of, longest_path, size_of, widest_circle
from stages.formats.scale import scales_of


def grid(size_hw: tuple[int, int], centre_xy: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return x - centre_xy[0], y - centre_xy[1]


def line(length: float, width: float, degrees: float, shift: float = 0.0, round_ends: bool = False) -> np.ndarray:
    """A rectangle, or one with half discs as ends, at an angle, counter-clockwise from the rows; not square."""
    side = int(length + width) + 8
    x, y = grid((side, side + 5), (side / 2 + shift, side / 2 - shift))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, off = abs(x * cos - y * sin), abs(x * sin + y * cos)
    if round_ends:
        return np.hypot(np.maximum(along - (length - width) / 2, 0), off) <= width / 2
    return (along <= length / 2) & (off <= width / 2)


@pytest.mark.parametrize("round_ends", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 12, 16])
def test_lines_at_many_angles_are_measured_within_what_the_docs_state(width, round_ends):
    for length in {max(8, 4 * width), max(20, 5 * width), max(20, 10 * width)}:
        area = length * width - (1 - math.pi / 4) * width**2 * round_ends
        for number, angle in enumerate(range(-87, 91, 7)):
            size = size_of(line(length, width, angle, 0.13 + 0.37 * number % 1, round_ends))
            assert size.diameter is None
            assert size.length == pytest.approx(length, abs=length_limit(length)), angle
            assert size.mean_width == pytest.approx(area / length, abs=0.6), angle
            assert size.max_width == pytest.approx(width, abs=1), angle
            assert abs((size.orientation_deg - angle + 90) % 180 - 90) <= 90 / length, angle


def length_limit(length: float) -> float:
    """Largest error that docs/predict.md states."""
    return max(2, 0.03 * length)


@pytest.mark.parametrize("radius", [3, 3.5, 4, 5, 10, 20.5, 40])
def test_discs_have_the_diameter_that_they_were_drawn_with(radius):
    side = int(2 * radius) + 9
    for shift_x in np.arange(0, 1, 0.1):
        for shift_y in (0, 0.3, 0.5):
            mask = np.hypot(*grid((side, side + 3), (side / 2 + shift_x, side / 2 + shift_y))) <= radius
            size = size_of(mask)
            assert size.diameter == pytest.approx(2 * radius, rel=0.05 if radius >= 4 else 0.1)
            assert (size.length, size.mean_width, size.max_width, size.orientation_deg) == (None,) * 4
            assert lengths_of(mask)[2] == pytest.approx(2 * radius, abs=2), "the largest circle in it is itself"


def turned(points_xy: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of a polygon around the origin, at many angles and places between pixels; the image is not square."""
    for number, angle in enumerate(np.radians(range(0, 360, 25))):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle_xy = 95.2 + 0.31 * number % 1, 75.1 + 0.77 * number % 1
        yield polygon2mask((150, 190), (points_xy @ turn + middle_xy)[:, ::-1])


def polygon_area(points_xy: np.ndarray) -> float:
    (x, y), (next_x, next_y) = points_xy.T, np.roll(points_xy, -1, 0).T
    return abs((x * next_y - y * next_x).sum()) / 2


def band(middle_xy: list, widths: list) -> np.ndarray:
    """The outline of a bent line: its middle's points, and its width across at each."""
    middle = np.array(middle_xy, float)
    step = np.diff(middle, axis=0)
    across = np.stack([-step[:, 1], step[:, 0]], 1) / np.hypot(*step.T)[:, None]
    before, after = across[[0, *range(len(step))]], across[[*range(len(step)), -1]]
    sides = (before + after) / (1 + (before * after).sum(1))[:, None] * np.array(widths)[:, None] / 2
    return np.concatenate([middle + sides, (middle - sides)[::-1]])


CRACKS = {
    "zigzag": ([(-60, 0), (-20, 25), (20, -10), (60, 5)], [3, 3, 3, 3]),
    "widening": ([(-60, 0), (-20, 15), (20, -5), (60, 5)], [2, 3, 5, 6]),
    "spindle": ([(-50, 0), (0, 0), (50, 0)], [2, 8, 2]),
    "right angle": ([(-40, -20), (20, -20), (20, 30)], [5, 5, 5]),
}


@pytest.mark.parametrize("name", CRACKS)
def test_cracks_drawn_as_polygons_are_as_long_and_wide_as_drawn(name):
    middle, widths = CRACKS[name]
    outline, length = band(middle, widths), np.hypot(*np.diff(np.array(middle), axis=0).T).sum()
    for mask in turned(outline):
        size = size_of(mask)
        assert size.length == pytest.approx(length, abs=length_limit(length))
        assert size.mean_width == pytest.approx(polygon_area(outline) / length, abs=0.6)
        assert size.max_width == pytest.approx(max(widths), abs=1)


ROUND = np.linspace(0, 2 * np.pi, 72, endpoint=False)
STAINS = {
    "ellipse": np.stack([20 * np.cos(ROUND), 12 * np.sin(ROUND)], 1),
    "small ellipse": np.stack([6 * np.cos(ROUND), 4 * np.sin(ROUND)], 1),
    "rectangle": np.array([(-15, -10), (15, -10), (15, 10), (-15, 10)]),
    "hexagon": np.stack([15 * np.cos(ROUND[::12]), 15 * np.sin(ROUND[::12])], 1),
}


@pytest.mark.parametrize("name", STAINS)
def test_stains_drawn_as_polygons_have_the_diameter_of_their_area(name):
    diameter = math.sqrt(4 * polygon_area(STAINS[name]) / math.pi)
    for mask in turned(STAINS[name]):
        assert size_of(mask).diameter == pytest.approx(diameter, rel=0.05)
        assert size_of(mask).length is None


def test_the_length_of_a_closed_ring_is_half_of_the_way_round_and_its_width_is_its_own():
    mask = abs(np.hypot(*grid((140, 150), (70.3, 69.6))) - 50) <= 1.5
    size = size_of(mask)
    assert size.length == pytest.approx(math.pi * 50, rel=0.1)
    assert size.mean_width == pytest.approx(3, rel=0.1)
    assert size.max_width == pytest.approx(3, abs=1)


def test_a_thin_arc_has_the_length_of_its_curve():
    x, y = grid((140, 260), (130, 10))
    mask = (abs(np.hypot(x, y) - 100) <= 2.5) & (y > 0)
    size = size_of(mask)
    assert size.length == pytest.approx(math.pi * 100, rel=0.01)
    assert size.mean_width == pytest.approx(5, abs=0.1)
    assert abs(size.orientation_deg) < 0.5


def test_branches_count_for_the_mean_width_and_not_for_the_length():
    """By hand: a row of 3 x 60 px with a disc of 10 px on it, and a branch of 15 px, shorter than either arm."""
    mask = np.zeros((40, 70), bool)
    mask[20:23, 5:65] = True
    mask[5:20, 20:23] = True
    mask |= np.hypot(*grid(mask.shape, (45, 21))) <= 5
    size = size_of(mask)
    assert size.length == pytest.approx(60, abs=2)
    assert size.max_width == pytest.approx(10, abs=1)
    assert size.mean_width == pytest.approx(mask.sum() / (60 + 15), abs=0.1)


@pytest.mark.parametrize("height", [100, 128, 129, 300, 520])
def test_wide_regions_are_measured_on_a_coarser_grid_and_keep_their_thin_parts(height):
    """By hand: a rectangle, and a line of 3 px that leaves the middle of its short side, or no line."""
    mask = np.zeros((height + 7, 5 * height + 60), bool)
    mask[3 : 3 + height, 3 : 3 + 3 * height] = True
    for tail in (0, 2 * height):
        middle = height // 2 + 3
        mask[middle - 1 : middle + 2, 3 + 3 * height : 3 + 3 * height + tail] = True
        size = size_of(mask)
        assert size.length == pytest.approx(3 * height + tail, rel=0.03)
        assert size.max_width == pytest.approx(height, rel=0.03)


@pytest.mark.parametrize("rows", [BAND - 1, BAND, BAND + 1, 2 * BAND - 2, 3 * BAND + 40])
def test_the_largest_circle_is_found_wherever_it_lies_between_bands_of_rows(rows):
    for centre in {20, rows // 2, BAND - 3, BAND, rows}:
        mask = np.hypot(*grid((rows, 60), (30, min(centre, rows - 18)))) <= 16
        mask[1:-1, 29:32] = True
        whole = np.pad(mask, 1)
        corners = np.lib.stride_tricks.sliding_window_view(whole.repeat(2, 0).repeat(2, 1), (2, 2)).all((2, 3))
        assert widest_circle(whole, 40) == ndimage.distance_transform_edt(corners).max()


def test_the_largest_circle_may_be_wider_than_the_largest_square():
    """At the end of a band of rows: the square ends at four holes of one pixel, the circle below them."""
    mask = np.zeros((BAND + 50, 120), bool)
    mask[:, 60] = True  # a line down to it
    row, column = BAND - 2, 60
    mask[row - 54 : row + 48, column - 56 : column + 57] = True
    for down in (-40, 40):
        mask[row + down, [column - 40, column + 40]] = False
    whole = np.pad(mask, 1)
    assert lengths_of(mask)[2] == widest_circle(whole, len(whole)) < 2 * 54


def test_what_is_thin_and_what_has_a_direction():
    """Rectangles: 3 times as long as wide is thin, and from 1.2 times it has an orientation."""
    sizes = {length: size_of(np.ones((20, length), bool)) for length in (23, 25, 56, 64)}
    assert [size.length is None for size in sizes.values()] == [True, True, True, False]
    assert [str(size.orientation_deg) for size in sizes.values()] == ["None", "0.0", "0.0", "0.0"], "never -0.0"


def test_the_longest_way_is_the_longest_in_pixels_not_in_steps():
    """Arms from one point: 40 pixels to the left, 35 to the right, and 30 steps of 1.41 down to the right."""
    skeleton = np.zeros((40, 90), bool)
    skeleton[2, 5:81], skeleton[range(3, 33), range(46, 76)] = True, True
    path = longest_path(skeleton)
    assert {tuple(path[0].tolist()), tuple(path[-1].tolist())} == {(2, 5), (32, 75)}
    assert len(path) == 71


def test_what_is_called_before_each_defect_ends_the_work():
    labels = np.zeros((20, 50), np.uint8)
    labels[2:5, 4:44], labels[8:12, 3:9], labels[15:17, 3:9] = 1, 1, 2
    calls = iter([None, None])
    with pytest.raises(StopIteration):
        defects_of(labels, np.ones(labels.shape, np.float32), lambda: next(calls))
    assert next(calls, "both were used") == "both were used"


@pytest.mark.parametrize(("height", "width", "wanted"), [(1, 1, 1), (1, 9, 9), (8, 2, 4), (5, 5, 1)])
def test_a_rectangle_is_as_elongated_as_its_sides(height, width, wanted):
    assert axes_of(np.ones((height, width), bool))[0] == pytest.approx(wanted)


@pytest.mark.parametrize(("rows", "columns", "length"), [(1, 9, 9), (9, 1, 9), (3, 30, 30), (40, 4, 40)])
def test_upright_rectangles_are_exact_in_width(rows, columns, length):
    size = size_of(np.ones((rows, columns), bool))
    assert size.max_width == min(rows, columns)
    assert size.length == pytest.approx(length, abs=1)
    assert size.orientation_deg == (0 if columns > rows else 90)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2), (2, 2), (1, 3), (12, 12)])
def test_the_smallest_regions_have_a_size(size_hw):
    size = size_of(np.ones(size_hw, bool))
    assert (size.diameter is None) == (size_hw == (1, 3))


def test_a_diagonal_is_as_elongated_as_a_row():
    elongation, degrees = axes_of(np.eye(30, dtype=bool))
    assert elongation == pytest.approx(30 * 2**0.5, rel=0.01)
    assert degrees == pytest.approx(-45)


def test_millimetres_are_pixels_times_the_scale():
    labels = np.zeros((20, 50), np.uint8)
    labels[3:6, 4:44] = 1
    (defect,) = defects_of(labels, np.ones(labels.shape, np.float32))
    found = measured(defect, 0.5)
    assert (found["area_mm2"], found["max_width_mm"], found["mm_per_px"]) == (30, 1.5, 0.5)
    assert found["length_mm"] == pytest.approx(20, abs=0.5)
    assert found["diameter_mm"] is None
    assert set(measured(defect, None)) == {"length_px", "mean_width_px", "max_width_px", "diameter_px"}


def sources(folder: Path, *tags: dict[int, object]) -> list[Source]:
    found = []
    for index, own in enumerate(tags):
        image = Image.new("RGB", (30, 20))
        exif = image.getexif()
        for tag, value in own.items():
            exif[tag] = value
        path = folder / f"{index}.jpg"
        image.save(path, exif=exif)
        found.append(Source(path, path.name, str(index)))
    return found


def test_scales_come_from_a_number_a_csv_or_exif(tmp_path):
    images = sources(tmp_path, {282: 254.0, 283: 254.0, 296: 2}, {282: 50.0, 283: 50.0, 296: 3})
    assert scales_of("0.25", images) == {"0.jpg": 0.25, "1.jpg": 0.25}
    assert scales_of("exif", images) == pytest.approx({"0.jpg": 0.1, "1.jpg": 0.2})
    path = tmp_path / "scales.csv"
    path.write_text("mm_per_px,file,remark\n0.5,0.jpg,x\n1e-3,1.jpg,\n2,another.jpg,\n")
    assert {"0.jpg": 0.5, "1.jpg": 0.001}.items() <= scales_of(str(path), images).items()
    path.write_text("file,mm_per_px\n0.jpg,0.5\n1.jpg,2\n", encoding="utf-8-sig")  # as Excel saves it
    assert scales_of(str(path), images) == {"0.jpg": 0.5, "1.jpg": 2}
    assert scales_of("exif", sources(tmp_path, {282: 72.0, 283: 72.0, 296: 3})) == pytest.approx({"0.jpg": 10 / 72})


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({}, r"0\.jpg: its EXIF holds no resolution in inches or centimetres"),
        ({282: 0.0, 283: 0.0, 296: 2}, r"no resolution in inches or centimetres"),
        ({282: 72.0, 283: 72.0, 296: 2}, r"resolution is 72 per inch, which is written where no scale is known"),
        ({282: 96.0, 283: 96.0, 296: 2}, r"resolution is 96 per inch, which is written where no scale is known"),
        ({282: 100.0, 283: 200.0, 296: 3}, r"differs, 100 across and 200 down"),
        ({282: 100.0, 283: 100.0, 296: 1}, r"no resolution in inches or centimetres"),
    ],
)
def test_an_exif_without_a_usable_scale_is_an_error(tmp_path, tags, message):
    with pytest.raises(UserError, match=message):
        scales_of("exif", sources(tmp_path, tags))


def test_images_that_cannot_be_read_need_no_exif(tmp_path):
    """They are skipped; a pipe is not waited for."""
    (good,) = sources(tmp_path, {282: 254.0, 283: 254.0, 296: 2})
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.new("RGB", (30, 20)).save(tmp_path / "other.jpg", format="PPM")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:40])
    paths = [tmp_path / f"{name}.jpg" for name in ("pipe", "other", "cut")]
    bad = [Source(path, path.name, path.stem) for path in paths]
    assert scales_of("exif", [*bad, good]) == pytest.approx({"0.jpg": 0.1})


def test_names_in_a_csv_may_be_those_of_the_table(tmp_path):
    """The table has an apostrophe in front of a name that a spreadsheet would run."""
    (image,) = sources(tmp_path, {})
    (tmp_path / "scales.csv").write_text("file,mm_per_px\n'=0.jpg,0.5\n")
    assert scales_of(str(tmp_path / "scales.csv"), [image._replace(file="=0.jpg")]) == {"=0.jpg": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", r"line 1: columns \['a', 'b'\]; needed are file and mm_per_px"),
        ("file,mm_per_px\n0.jpg,wide\n", r"line 2: mm_per_px = 'wide': not a number"),
        ("file,mm_per_px\n0.jpg\n", r"line 2: mm_per_px = None: not a number"),
        ("file,mm_per_px\n0.jpg,-1\n", r"line 2: mm_per_px = -1\.0: millimetres per pixel must be above 0"),
        ("file,mm_per_px\n0.jpg,1\n0.jpg,2\n", r"line 3: a second line for 0\.jpg"),
        ("file,mm_per_px\nother.jpg,1\n", r"no line for 1 of the images, the first is 0\.jpg"),
    ],
)
def test_mistakes_in_a_csv_are_named_by_line(tmp_path, text, message):
    path = tmp_path / "scales.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        scales_of(str(path), sources(tmp_path, {}))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e200"])
def test_a_scale_that_is_no_length_is_an_error(text):
    with pytest.raises(UserError, match=r"--mm-per-px = .*must be above 0"):
        scales_of(text, [])


def test_a_scale_that_is_nothing_known_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"neither a number nor `exif` nor a CSV file"):
        scales_of(str(tmp_path / "absent.csv"), [])
