"""Prompting a teacher: the official predictor's own results, batched."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score

from stages.data.boxes import Window, centre_line, pixels_of_box
from stages.masks import rle
from stages.teacher.candidates import LOGIT_LIMIT, Candidate, describe, join
from stages.teacher.hygiene import parts_on_line
from stages.teacher.promptable import Proposals
from stages.teacher.prompting import Chunks, _stand_out, measure, predict, prompted
from stages.teacher.sam import SamTeacher
from stages.teacher.windows import InputFrame, View, crop_window, input_size_hw, views_of, whole_window
from tests.support.tiny_teacher import TINY, params_of, tiny_sam

pytestmark = pytest.mark.usefixtures("in_float32")

SIZE_HW = (37, 90)
BOXES = np.array([[5.0, 4.0, 30.5, 20.0], [40.0, 10.0, 88.0, 36.0], [60.25, 1.0, 70.0, 9.0]])


@pytest.fixture(scope="module")
def sam() -> Sam:
    return tiny_sam()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


def official(sam: Sam, image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (4, H, W), predicted IoU (4,), stability (4,) by SamPredictor on the whole of `image`."""
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    parts = [predictor.predict(box=box, multimask_output=many, return_logits=True) for many in (False, True)]
    logits = np.concatenate([part[0] for part in parts])
    return logits, np.concatenate([p[1] for p in parts]), calculate_stability_score(torch.tensor(logits), 0.0, 1.0)


def whole(candidate: Candidate, window: Window) -> np.ndarray:
    """The mask on all of the encoded window."""
    mask, (x1, y1, x2, y2) = np.zeros(window.size_hw, bool), candidate.tight
    mask[y1 - window.y1 : y2 - window.y1, x1 - window.x1 : x2 - window.x1] = candidate.mask
    return mask


def views(boxes: np.ndarray, windows: list[Window]) -> list[list[View]]:
    """One view per box."""
    return [[View(window, tuple(box), window)] for box, window in zip(boxes, windows, strict=True)]


def whole_views(boxes: np.ndarray) -> list[list[View]]:
    """The whole image for each box."""
    return views(boxes, [whole_window(SIZE_HW)] * len(boxes))


def assert_same(found: list[Candidate], window: Window, image: np.ndarray, sam: Sam, box: np.ndarray) -> None:
    """The candidates are the official predictor's results on `image`."""
    logits, iou, stability = official(sam, image, box)
    assert 0.02 < (logits > 0).mean() < 0.98, "the comparison would say little"
    clear = np.abs(logits) > 1e-4
    assert clear.mean() > 0.99
    assert (np.stack([whole(candidate, window) for candidate in found]) == (logits > 0))[clear].all()
    np.testing.assert_allclose([candidate.predicted_iou for candidate in found], iou, atol=1e-5)
    np.testing.assert_allclose([candidate.stability for candidate in found], stability, atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_whole_image_equals_the_official_predictor(sam, image, batch_size):
    found = list(predict(SamTeacher(sam), image, whole_views(BOXES), Chunks(batch_size)))
    for box, answer in zip(BOXES, found, strict=True):
        assert_same(answer, whole_window(SIZE_HW), image, sam, box)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_crop_equals_the_official_predictor_on_the_crop(sam, image, batch_size):
    windows = [crop_window(tuple(box), SIZE_HW, 1.5, 8) for box in BOXES]
    assert len(set(windows)) == 3
    found = list(predict(SamTeacher(sam), image, views(BOXES, windows), Chunks(batch_size)))
    for box, window, answer in zip(BOXES, windows, found, strict=True):
        part = image[window.y1 : window.y2, window.x1 : window.x2]
        assert_same(answer, window, part, sam, box - [window.x1, window.y1, window.x1, window.y1])


def test_an_image_is_encoded_once_for_all_its_boxes_and_crops_as_many_pixels_at_once_on_a_cpu(sam, image, monkeypatch):
    monkeypatch.setattr("stages.teacher.sam.CPU_PIXELS", 2 * TINY.image_size**2)
    sizes = []
    handle = sam.image_encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    list(predict(SamTeacher(sam), image, whole_views(BOXES), Chunks(2)))
    assert sizes == [1]
    sizes.clear()
    windows = [crop_window(tuple(box), SIZE_HW, 1.5, 8) for box in BOXES]
    list(predict(SamTeacher(sam), image, views(BOXES, windows), Chunks(16)))
    monkeypatch.setattr("stages.teacher.sam.CPU_PIXELS", 1)
    list(predict(SamTeacher(sam), image, views(BOXES, windows), Chunks(16)))
    handle.remove()
    assert sizes == [2, 1, 1, 1, 1]


def test_mean_probability_is_over_the_mask_and_its_bounding_box_is_tight(sam, image):
    (found,) = predict(SamTeacher(sam), image, whole_views(BOXES[:1]), Chunks(1))
    logits, _, _ = official(sam, image, BOXES[0])
    for candidate, one in zip(found, logits, strict=True):
        assert (one > 0).any()
        assert candidate.mean_probability == pytest.approx((1 / (1 + np.exp(-one[one > 0]))).mean(), abs=1e-5)
        assert candidate.mask.shape == candidate.tight.size_hw
        assert all(
            edge.any() for edge in (candidate.mask[0], candidate.mask[-1], candidate.mask.T[0], candidate.mask.T[-1])
        )


@pytest.mark.parametrize(("logit", "stability"), [(-9.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (2.0, 1.0)])
def test_empty_and_uncertain_masks(sam, image, monkeypatch, logit, stability):
    decode = SamTeacher.decode

    def decoded(*asked):
        logits, predicted_iou = decode(*asked)
        return Proposals(torch.full_like(logits, logit), predicted_iou)

    monkeypatch.setattr(SamTeacher, "decode", decoded)
    (found,) = predict(SamTeacher(sam), image, whole_views(BOXES[:1]), Chunks(1))
    for candidate in found:
        assert candidate.tight.size_hw == candidate.mask.shape == (SIZE_HW if logit > 0 else (0, 0))
        assert candidate.stability == stability
        assert candidate.mean_probability == (pytest.approx(1 / (1 + np.exp(-logit))) if logit > 0 else 0)


@pytest.mark.parametrize("size_hw", [(37, 90), (300, 41), (9, 120)], ids=["wide", "high", "flat"])
def test_upsampling_where_there_may_be_mask_equals_segment_anything_s_on_the_whole(sam, size_hw):
    draw = torch.Generator().manual_seed(0)
    low_res = torch.full((20, 20), -4.0)
    low_res[:9, 1:4] = torch.randn(9, 3, generator=draw) * 3
    window = Window(3, 5, 3 + size_hw[1], 5 + size_hw[0])
    frame = InputFrame(sam.image_encoder.img_size, "pad")
    wanted = sam.postprocess_masks(low_res[None, None], input_size_hw(window, frame), size_hw)[0, 0]
    inside = Window(6, 8, 20, 13)
    found = describe(low_res, 0.5, window, inside, frame)
    clear = (wanted.abs() > 1e-4).numpy()
    assert (whole(found, window) == (wanted > 0).numpy())[clear].all()
    assert found.stability == pytest.approx(float((wanted > 1).sum() / (wanted > -1).sum()), abs=1e-3)
    assert found.probability.dtype == np.float32
    np.testing.assert_allclose(found.probability, wanted[3:8, 3:17].sigmoid(), atol=1e-5)


def flat(logit: float) -> torch.Tensor:
    return torch.full((4, 4), logit)


def test_logits_of_pieces_are_joined_by_how_deep_a_pixel_lies_in_each():
    # two pieces of 4 x 2 px that share two columns, shown at the input's own scale
    frame, windows = InputFrame(4, "pad"), (Window(10, 5, 14, 7), Window(12, 5, 16, 7))
    parts = [View(window, window, window) for window in windows]
    found = join([flat(3.0), flat(-1.0)], [0.9, 0.1], parts, Window(11, 6, 14, 7), frame)
    # weights along a row 0.5, 1.5, 1.5, 0.5 each: column 12 is (3 * 1.5 - 0.5) / 2 = 2, column 13 (1.5 - 1.5) / 2 = 0
    assert found.tight == Window(10, 5, 13, 7)
    assert found.mask.all()
    assert found.stability == pytest.approx(6 / 8)
    assert found.mean_probability == pytest.approx((2 / (1 + np.exp(-3)) + 1 / (1 + np.exp(-2))) / 3, abs=1e-6)
    assert found.predicted_iou == pytest.approx((6 * 0.9 + 2 * 0.1) / 8)
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp([[-3.0, -2.0, 0.0]])), atol=1e-6)


def test_a_single_confident_piece_does_not_outvote_others_without_limit():
    frame, window = InputFrame(4, "pad"), Window(0, 0, 4, 4)
    view = View(window, window, window)
    found = join([flat(1000.0), flat(-LOGIT_LIMIT - 1), flat(-1.0)], [1.0, 0.0, 0.5], [view] * 3, window, frame)
    assert found.tight.size_hw == (0, 0)
    assert found.predicted_iou == pytest.approx(0.5)  # empty: the plain mean


def test_pieces_between_which_no_view_decides_have_no_mask_there():
    frame, windows = InputFrame(4, "pad"), (Window(0, 0, 4, 4), Window(8, 8, 12, 12))
    found = join([flat(2.0)] * 2, [0.5] * 2, [View(each, each, each) for each in windows], windows[0], frame)
    assert found.tight == Window(0, 0, 12, 12)
    assert found.mask.sum() == 32


def block(x1: int, y1: int, x2: int, y2: int, predicted_iou: float) -> Candidate:
    mask = np.ones((y2 - y1, x2 - x1), bool)
    return Candidate(Window(x1, y1, x2, y2), mask, predicted_iou, 1.0, 1.0, mask.astype(np.float32))


@pytest.mark.parametrize(
    ("crack", "pieces", "view", "stand_out"),
    [
        (60, (20, 30, 190, 32), (20, 25, 190, 45), True),
        (60, (20, 25, 190, 45), (20, 30, 190, 32), False),
        (60, (20, 30, 190, 32), (20, 30, 190, 32), False),
        (130, (20, 30, 190, 32), (20, 25, 190, 45), False),
    ],
    ids=["the crack", "a block", "no better than the view", "hardly darker than the surface"],
)
def test_pieces_decide_where_their_mask_stands_out_from_the_surface(crack, pieces, view, stand_out):
    image = np.random.default_rng(0).normal(140, 20, (60, 210, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    image[30:32, 20:190] = np.clip(image[30:32, 20:190].astype(int) + crack - 140, 0, 255)
    # the best of the last three counts, by predicted IoU
    joined = [block(0, 0, 5, 5, 0.9), block(*pieces, 0.4), block(0, 0, 5, 5, 0.3), block(0, 0, 5, 5, 0.2)]
    whole = [block(0, 0, 5, 5, 0.9), block(0, 0, 5, 5, 0.3), block(*view, 0.8), block(0, 0, 5, 5, 0.2)]
    assert _stand_out(joined, whole, image, (20.0, 20.0, 190.0, 50.0)) is stand_out


@pytest.mark.parametrize("view", ["crop", "whole"])
def test_a_box_in_pieces_equals_the_official_predictor_on_each_of_them(sam, monkeypatch, view):
    size_hw, box = (150, 210), (20.0, 15.0, 190.0, 100.0)
    image = np.random.default_rng(2).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    pieces = views_of(box, size_hw, params_of(view=view, min_scale=1.0), InputFrame(sam.image_encoder.img_size, "pad"))
    assert len(pieces) > 6
    monkeypatch.setattr("stages.teacher.prompting.LEAST_SEPARATION", 0.0)
    monkeypatch.setattr("stages.teacher.prompting.LEAD", -1.0)
    (found,) = predict(SamTeacher(sam), image, [pieces], Chunks(64))
    total, weights = np.zeros((4, *size_hw)), np.zeros(size_hw)
    for (x1, y1, x2, y2), prompt, part in pieces[1:]:
        logits = official(sam, image[y1:y2, x1:x2], np.array(prompt) - [x1, y1, x1, y1])[0]
        depth = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in part.size_hw]
        weight, place = np.outer(*depth), (slice(part.y1, part.y2), slice(part.x1, part.x2))
        own = logits[:, part.y1 - y1 : part.y2 - y1, part.x1 - x1 : part.x2 - x1]
        total[:, *place] += weight * own.clip(-LOGIT_LIMIT, LOGIT_LIMIT)
        weights[place] += weight
    logits = total / np.maximum(weights, 1e-9)
    clear, masks = np.abs(logits) > 1e-3, np.stack([whole(one, whole_window(size_hw)) for one in found])
    assert 0.02 < masks.mean() < 0.98
    assert (masks == (logits > 0))[clear].all()


def test_the_whole_image_is_encoded_once_for_all_boxes_that_are_also_cut_into_pieces(sam, monkeypatch):
    size_hw, boxes = (150, 210), [(20.0, 15.0, 50.0, 40.0), (60.0, 50.0, 190.0, 100.0), (5.0, 90.0, 30.0, 140.0)]
    image, teacher = np.random.default_rng(2).integers(0, 256, (*size_hw, 3), dtype=np.uint8), SamTeacher(sam)
    cut = [views_of(box, size_hw, params_of(view="whole", min_scale=1.0), teacher.frame) for box in boxes]
    assert [len(several) for several in cut] == [2, 9, 3]
    alone = [next(predict(teacher, image, [several], Chunks(64))) for several in cut]
    sizes, encode = [], teacher.encode
    monkeypatch.setattr(teacher, "encode", lambda seen: sizes.extend(one.shape[:2] for one in seen) or encode(seen))
    found = list(predict(teacher, image, cut, Chunks(4)))
    assert sizes.count(size_hw) == 1 and len(sizes) == 1 + 1 + 8 + 2
    for one, other in zip(chain(*found), chain(*alone), strict=True):
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-4)


def test_the_centre_line_is_that_of_the_box_as_it_was_drawn_also_where_it_is_enlarged(sam, image):
    box = (10.0, 0.0, 70.0, 16.0)  # at the border: enlarged it has its middle in row 12
    rows = prompted(SamTeacher(sam), image, [box], params_of(grow=0.5, parts="centre"), Chunks(4))
    masks, line = [rle.decode(row["rle"], SIZE_HW) for row in rows], centre_line(box, whole_window(SIZE_HW))
    assert line == Window(0, 8, 90, 9)
    all_parts = [row["rle"] for row in prompted(SamTeacher(sam), image, [box], params_of(grow=0.5), Chunks(4))]
    assert any((rle.decode(code, SIZE_HW) != mask).any() for code, mask in zip(all_parts, masks, strict=True))
    assert all((parts_on_line(mask, line) == mask).all() for mask in masks)


def test_measures_of_a_mask_by_hand():
    found = measure(np.ones((3, 6), bool), Window(22, 11, 28, 14), (24.0, 11.0, 30.0, 13.0), (20, 40))
    assert found["area"] == 18
    assert found["area_in_box"] == 4 * 2
    assert found["box_iou"] == pytest.approx(8 / (18 + 12 - 8))


def test_an_empty_mask_measures_nothing():
    found = measure(np.zeros((0, 0), bool), Window(20, 10, 20, 10), (24.0, 11.0, 30.0, 13.0), (20, 40))
    assert set(found.values()) == {0}


@given(arrays(bool, (9, 13)), st.integers(0, 5), st.integers(0, 4), st.tuples(*[st.floats(0, 12)] * 4))
def test_area_in_box_equals_that_on_the_whole_image(mask, left, top, corners):
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    whole = np.zeros((14, 20), bool)
    whole[top : top + 9, left : left + 13] = mask
    inside = pixels_of_box((x1, y1, x2, y2), (14, 20))
    found = measure(mask, Window(left, top, left + 13, top + 9), (x1, y1, x2, y2), (14, 20))
    assert found["area_in_box"] == whole[inside.y1 : inside.y2, inside.x1 : inside.x2].sum()
