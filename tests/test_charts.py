"""The charts of the report: well-formed SVG, inside its frame."""

from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.bootstrap import BootstrapParams
from stages.evaluation.summary import summarise
from stages.reporting.charts import curve_chart, scores_chart

BOOTSTRAP = BootstrapParams(samples=200, seed=1)


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
