"""The pictures of the report's page: layers, the enlarged window, and the bound on their size."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stages.data.boxes import Window
from stages.evaluation.palette import colour_of_label
from stages.reporting.cases import Case, agreement
from stages.reporting.layers import VIEW_BYTES, picture, tints, view, window_on
from tests.support.report_inputs import LABELS, NAMES, SIZE_HW


def case_of(truth: np.ndarray | None, title: str = "test/p0", boxes: list | None = None) -> Case:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    return Case(title, agreement(LABELS, LABELS, truth, len(NAMES)), image, boxes or [], LABELS, LABELS, truth)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_one_pixel_of_defect_survives_a_large_shrink():
    labels = np.zeros((900, 2400), dtype=np.uint8)
    labels[631, 1999] = 2
    fill, _ = tints(labels, (400, 150))
    assert (fill == 2).sum() == 1
    image = np.full((900, 2400, 3), 120, np.uint8)
    shown = view(Case("", agreement(labels, labels, None, 2), image, [], labels, labels, None), Window(0, 0, 2400, 900))
    layer = np.asarray(decoded(shown.layers["student"]).convert("RGBA"))
    assert (layer == (*colour_of_label(2), 255)).all(axis=-1).any()


@given(labels=arrays(np.uint8, (30, 70), elements=st.sampled_from([0] * 40 + [1, 2, 255])))
def test_the_enlarged_window_lies_inside_and_shows_a_wrong_pixel_where_there_is_one(labels):
    window = window_on(labels, np.zeros_like(labels), [])
    assert 0 <= window.x1 <= window.x2 <= 70
    assert 0 <= window.y1 <= window.y2 <= 30
    defect = (labels > 0) & (labels != 255)
    assert defect[window.y1 : window.y2, window.x1 : window.x2].any() == defect.any()


def test_the_window_goes_where_most_is_wrong():
    truth = np.zeros((200, 400), dtype=np.uint8)
    truth[10:60, 10:100] = 1
    truth[150:156, 300:320] = 2
    predicted = truth.copy()
    predicted[150:156, 300:320] = 0
    window = window_on(truth, predicted, [])
    assert window.x1 <= 300 < 320 <= window.x2
    assert window.x1 > 100


def test_a_layer_is_transparent_but_for_the_defects_and_lies_where_they_are():
    shown = picture(case_of(LABELS, boxes=[(1, (8.0, 18.0, 42.0, 32.0))]), "test", NAMES)
    assert list(shown.whole.layers) == ["teacher", "student", "truth"]
    assert decoded(shown.whole.image).size == SIZE_HW[::-1]
    layer = np.asarray(decoded(shown.whole.layers["truth"]).convert("RGBA"))
    scale = layer.shape[1] / SIZE_HW[1]
    assert layer.shape[:2] == (shown.whole.height, shown.whole.width) == (500, 800)
    middle = layer[round(25 * scale), round(25 * scale)]
    assert tuple(middle[:3]) == colour_of_label(2)
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
    assert sum(len(uri) for uri in (made.image, *made.layers.values())) <= VIEW_BYTES * 4 / 3 + 100
    assert made.width < 800
    assert made.width / made.height == pytest.approx(11 / 7, rel=0.02)
