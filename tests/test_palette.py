"""One palette for the report and for what predict draws."""

import io

import numpy as np
from PIL import Image

from stages.data.tables import IGNORE
from stages.evaluation.palette import COLOURS, colour_of_class, colour_of_label, hex_of_label
from stages.formats.measured_defects import Record, defects_of
from stages.formats.overlay_jpeg import overlay
from stages.reporting.cases import Case, agreement
from stages.reporting.layers import picture

NAMES = tuple(f"class {class_id}" for class_id in range(9))


def test_report_and_predict_draw_nine_classes_in_the_same_nine_colours():
    labels = np.zeros((40, 9 * 24), dtype=np.uint8)
    for class_id in range(9):
        labels[10:30, 24 * class_id + 4 : 24 * class_id + 20] = class_id + 1
    image = np.zeros((*labels.shape, 3), dtype=np.uint8)
    shown = picture(Case("", agreement(labels, labels, None, 9), image, [], labels, labels, None), "test", NAMES)
    assert shown.legend == [(name, hex_of_label(class_id + 1)) for class_id, name in enumerate(NAMES)]
    assert len({colour for _, colour in shown.legend}) == 9
    defects = defects_of(labels, np.ones(labels.shape, np.float16))
    record = Record(file="a.png", name="a", sha256="", model="", size_hw=labels.shape, defects=defects)
    drawn = np.asarray(Image.open(io.BytesIO(overlay(image, record)))).astype(int)
    for class_id, (_, colour) in enumerate(shown.legend):
        rim = drawn[15:25, 24 * class_id + 3]  # just left of the defect, in its full colour
        expected = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert np.abs(rim - expected).max() < 60
        nearest = min(range(9), key=lambda other: np.abs(rim.mean(axis=0) - colour_of_class(other)).sum())
        assert nearest == class_id


def test_there_is_a_colour_for_any_number_of_classes():
    assert len(set(COLOURS)) == len(COLOURS) == 16
    assert colour_of_class(16) == colour_of_class(0) == colour_of_label(1)
    assert colour_of_label(254) in COLOURS
    assert colour_of_label(IGNORE) not in COLOURS
