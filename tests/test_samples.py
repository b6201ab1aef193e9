"""Training samples: each a function of its number, image and labels cut alike, padding ignored."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.tables import IGNORE, decode_label_map
from stages.masks import rle
from stages.student.inference import predict
from stages.training import samples as module
from stages.training.config import AugmentParams
from stages.training.sample_boxes import nearest
from stages.training.samples import augmented, collate
from tests.support.tiny_student import student
from tests.support.train_split import PLAIN, SIZES_HW, candidate_mask, samples_of


@pytest.mark.parametrize("scale", ["native", "stretch"])
@pytest.mark.parametrize("flip", [False, True])
def test_image_and_labels_are_cut_and_flipped_alike(split, scale, flip):
    samples = samples_of(split, scale, PLAIN.model_copy(update={"flip": flip}))
    shown = set()
    for number in range(40):
        image, _, labels, *_ = samples[number]
        assert image.shape == (3, 56, 56)
        assert labels.shape == (56, 56)
        known = labels != IGNORE
        error = (image[0] * 255 - labels * 100).abs()[known]
        # stretching interpolates, so only the inside of areas can agree
        assert (error.max() < 0.01) if scale == "native" else (error.median() < 0.01)
        shown |= set(labels.unique().tolist())
    assert {0, 1, 2} <= shown


def test_a_stretched_sample_is_to_the_bit_what_predictions_see(split):
    samples, given = samples_of(split, "stretch"), []
    network = student(scale="stretch").eval()
    network.register_forward_pre_hook(lambda _, images: given.append(images[0][0]))
    for number in range(4):
        index, _, _ = samples._place(np.random.default_rng([0, number]))
        predict(network, read_image(split.source, samples.images[index]))
        assert torch.equal(samples[number].clean, given.pop())


def test_a_sample_depends_on_its_number_and_the_seed_alone(split):
    augment = AugmentParams(flip=True, brightness=0.3, contrast=0.3, saturation=0.5, blur_px=1.0)
    one, two, other = (samples_of(split, augment=augment, seed=seed) for seed in (0, 0, 1))
    forward = [one[number] for number in range(12)]
    backward = [two[number] for number in reversed(range(12))][::-1]
    assert all(
        torch.equal(a.image, b.image) and torch.equal(a.labels, b.labels)
        for a, b in zip(forward, backward, strict=True)
    )
    assert not all(torch.equal(a.image, other[number].image) for number, a in enumerate(forward))


def test_samples_around_boxes_show_their_defect_and_take_classes_in_turn(split):
    samples = samples_of(split, defect_share=1.0)
    seen = [set(samples.labels(number).unique().tolist()) & {1, 2} for number in range(60)]
    assert all(len(labels) == 1 for labels in seen)
    assert 15 < sum(labels == {1} for labels in seen) < 45


def test_samples_anywhere_show_every_image(split):
    samples = samples_of(split, defect_share=0.0)
    assert {samples._place(np.random.default_rng([0, number]))[0] for number in range(60)} == {0, 1, 2}


def places(samples, count: int) -> list[tuple[int, int, int]]:
    return [samples._place(np.random.default_rng([0, number])) for number in range(count)]


def test_a_window_anywhere_is_at_every_place_of_the_image_as_often(split):
    samples = samples_of(split, defect_share=0.0)
    samples.sizes_hw = np.array([[57, 58]] * 3)  # two places down, three across
    found = [(top, left) for _, top, left in places(samples, 1200)]
    each, counts = np.unique(found, axis=0, return_counts=True)
    assert each.tolist() == [[top, left] for top in range(2) for left in range(3)]
    assert counts == pytest.approx([200] * 6, abs=40)


def test_a_box_lies_from_a_tenth_to_nine_tenths_of_the_window_that_stays_in_the_image(split):
    """The middle of the box in image 1, of 40 x 200 pixels, is at x = 165; the window has 56."""
    lefts = sorted(left for image, _, left in places(samples_of(split, defect_share=1.0), 400) if image == 1)
    assert lefts[0] == round(165 - 0.9 * 56)
    assert lefts[-1] == 200 - 56
    assert np.mean(np.array(lefts) == 200 - 56) == pytest.approx((165 - 0.1 * 56 - 144) / (0.8 * 56), abs=0.07)
    tops = {top for image, top, _ in places(samples_of(split, defect_share=1.0), 400) if image == 0}
    assert (min(tops), max(tops)) == (round(65 - 0.9 * 56), 90 - 56)


def test_each_axis_is_mirrored_in_half_of_the_samples_whatever_the_other(split):
    plain = samples_of(split, defect_share=1.0)
    mirrored = samples_of(split, augment=PLAIN.model_copy(update={"flip": True}), defect_share=1.0)
    counts = dict.fromkeys([(), (-2,), (-1,), (-2, -1)], 0)
    for number in range(120):
        before, after = plain[number].labels, mirrored[number].labels
        (own,) = [axes for axes in counts if torch.equal(before.flip(axes), after)]
        counts[own] += 1
    assert list(counts.values()) == pytest.approx([30] * 4, abs=12)


def trusting(split, *images: int):
    """The split, its labels in rows 60 and below trusted in these images; pieces of one that is less high in all."""
    codes = [None] * len(SIZES_HW)
    for image in images:
        rows = np.zeros(SIZES_HW[image], bool)
        rows[60:] = True
        codes[image] = rle.encode(rows if rows.any() else ~rows, (0, 0), SIZES_HW[image])
    index = split.masks.column_names.index("trusted")
    return split._replace(masks=split.masks.set_column(index, "trusted", pa.array(codes, pa.binary())))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_samples_is_of_images_with_trusted_labels(split, share):
    samples = samples_of(trusting(split, 1), trusted_share=share)
    drawn = [samples._place(np.random.default_rng([0, number]))[0] == 1 for number in range(400)]
    assert np.mean(drawn) == pytest.approx(share, abs=0.07)


def test_the_share_changes_nothing_where_no_label_or_every_label_is_trusted(split):
    for one in (split, trusting(split, 0, 1, 2)):
        few, many = (samples_of(one, trusted_share=share) for share in (0.1, 0.9))
        assert all(torch.equal(few[number].image, many[number].image) for number in range(10))
    assert all(
        torch.equal(samples_of(split)[number].image, samples_of(trusting(split, 0, 1, 2))[number].image)
        for number in range(10)
    )
    assert samples_of(split)[0].trusted is None
    assert collate([samples_of(split)[0]]).trusted is None


@pytest.mark.parametrize("scale", ["native", "stretch"])
def test_trusted_pixels_are_cut_and_flipped_like_the_labels(split, scale):
    """Image 0 is red where it is class 1, and its defect begins in row 60, as its trusted pixels do."""
    flips = PLAIN.model_copy(update={"flip": True})
    samples, seen = samples_of(trusting(split, 0), scale, flips, defect_share=1.0, trusted_share=1.0), 0
    for number in range(20):
        _, _, labels, _, trusted = samples[number]
        assert trusted.shape == labels.shape and trusted.dtype == torch.bool
        assert trusted[labels == 2].all()
        assert not trusted[labels == IGNORE].any()
        assert (~trusted).any()
        seen += int((labels == 2).any())
    assert seen > 10
    batch = collate([samples[number] for number in range(3)])
    assert torch.equal(batch.trusted[2], samples[2].trusted)
    assert torch.equal(batch.correctable(), ~batch.trusted)


def test_of_an_image_without_trusted_labels_no_pixel_is_trusted(split):
    samples = samples_of(trusting(split, 0), trusted_share=0.0)
    assert not any(samples[number].trusted.any() for number in range(5))


def test_where_only_trusted_images_have_boxes_the_others_are_seen_anywhere(split):
    samples = samples_of(trusting(split, 0, 1), defect_share=1.0, trusted_share=0.5)
    assert {samples._place(np.random.default_rng([0, number]))[0] for number in range(60)} == {0, 1, 2}


def test_padding_around_a_small_image_is_ignored(split):
    samples = samples_of(split, defect_share=0.0)
    small = next(n for n in range(60) if samples._place(np.random.default_rng([0, n]))[0] == 2)
    labels = samples[small].labels
    assert (labels[:30, :35] == 0).all()
    assert (labels[30:] == IGNORE).all()
    assert (labels[:, 35:] == IGNORE).all()


def test_labels_can_be_counted_without_reading_images(split):
    samples = samples_of(split)
    for number in range(10):
        assert torch.equal(samples.labels(number), samples[number].labels)


def test_photometric_augmentation_moves_the_image_and_not_the_labels(split):
    plain, moved = (
        samples_of(split),
        samples_of(split, augment=PLAIN.model_copy(update={"brightness": 0.4, "contrast": 0.4})),
    )
    for number in range(10):
        a, b = plain[number], moved[number]
        assert torch.equal(a.labels, b.labels)
        assert b.image.min() >= 0 and b.image.max() <= 1


def test_brightness_scales_the_mean_and_contrast_what_differs_from_it():
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    augment = PLAIN.model_copy(update={"brightness": 0.3, "contrast": 0.6})
    brightness, contrast = [], []
    for seed in range(40):
        found = augmented(np.random.default_rng(seed), image, augment)
        brightness.append((found.mean() / image.mean()).item() - 1)
        contrast.append((found.std() / image.std()).item() - 1)
        wanted = (image - image.mean()) * (1 + contrast[-1]) + image.mean() * (1 + brightness[-1])
        torch.testing.assert_close(found, wanted)
    assert (min(brightness), max(brightness)) == pytest.approx((-0.3, 0.3), abs=0.03)
    assert (min(contrast), max(contrast)) == pytest.approx((-0.6, 0.6), abs=0.06)


def test_saturation_goes_both_ways():
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    augment = PLAIN.model_copy(update={"saturation": 0.5})
    found = [augmented(np.random.default_rng(seed), image, augment).std(0) / image.std(0) - 1 for seed in range(40)]
    changes = [each.mean().item() for each in found]
    assert (min(changes), max(changes)) == pytest.approx((-0.5, 0.5), abs=0.05)


def test_a_blurred_edge_is_as_wide_as_sigma():
    """The third number of this generator is 0.144, so that sigma is 2.88; the kernel ends at six pixels."""
    image = torch.zeros(3, 20, 40)
    image[..., 20:] = 1
    found = augmented(np.random.default_rng(1), image, PLAIN.model_copy(update={"blur_px": 20.0}))[0, 10].diff()
    place = torch.arange(39) - 19.0
    assert (found * place**2).sum().sqrt().item() == pytest.approx(0.144 * 20, rel=0.15)


def test_the_nearest_pixel_is_that_at_the_middle():
    labels = torch.arange(12).reshape(3, 4)
    assert nearest(labels, 2).tolist() == [[1, 3], [9, 11]]


def test_a_train_split_without_boxes_is_refused(split):
    with pytest.raises(UserError, match="no box"):
        samples_of(split._replace(candidates=split.candidates.slice(0, 0)))
    with pytest.raises(UserError, match="no image"):
        samples_of(split._replace(masks=split.masks.slice(0, 0)))


@pytest.mark.parametrize("scale", ["native", "stretch"])
def test_boxes_and_candidates_are_cut_and_mirrored_like_the_labels(split, scale):
    """Each window's boxes lie around what its labels show, and its first candidates are what is labelled."""
    flips = PLAIN.model_copy(update={"flip": True})
    samples, seen = samples_of(split, scale, flips, with_boxes=True), 0
    for number in range(40):
        _, _, labels, boxes, _ = samples[number]
        assert len(boxes.class_id) == len(boxes.candidates)
        shown = torch.zeros_like(labels)
        for class_id, mask, (x1, y1, x2, y2) in zip(
            boxes.class_id, boxes.of_chosen(boxes.candidates), boxes.xyxy.tolist(), strict=True
        ):
            assert x2 > 0 and y2 > 0 and x1 < 56 and y1 < 56
            shown[mask] = class_id + 1
            rows, columns = torch.nonzero(mask, as_tuple=True)
            if len(rows):
                assert rows.min() >= y1 - 0.5 and rows.max() + 1 <= y2 + 0.5
                assert columns.min() >= x1 - 0.5 and columns.max() + 1 <= x2 + 0.5
        assert torch.equal(shown[labels != IGNORE], labels[labels != IGNORE])
        seen += len(boxes.class_id)
    assert seen > 10, "windows without a box would prove nothing"


def test_candidates_and_scores_of_a_box_are_those_of_the_table(split):
    samples = samples_of(split, defect_share=1.0, with_boxes=True)
    table, view = samples.boxes, samples.view
    boxes = table.window(0, view, 40, 10)
    assert boxes.xyxy.tolist() == [[10.0, 20.0, 25.0, 30.0]]
    assert boxes.valid.tolist() == [[True, True, True, False]], "a candidate without a pixel is none"
    for index in range(4):
        whole = torch.from_numpy(candidate_mask(0, index))
        assert torch.equal(boxes.candidates[0, index, :50], whole[40:90, 10:66])
        assert not boxes.candidates[0, index, 50:].any(), "padding"
    torch.testing.assert_close(boxes.predicted_iou, torch.tensor([[0.9, 0.8, 0.7, 0.6]]))
    torch.testing.assert_close(boxes.box_iou, torch.tensor([[0.9, 0.85, 0.8, 0.75]]))
    assert boxes.chosen.tolist() == [0]
    assert len(table.window(0, view, 0, 60).class_id) == 0, "the box ends at x = 35"
    assert table.window(2, view, 0, 0).candidates.shape == (0, 4, 56, 56)


def test_a_batch_counts_its_boxes_by_image(split):
    samples = samples_of(split, defect_share=1.0, with_boxes=True)
    each = [samples[number] for number in range(4)]
    batch = collate(each)
    counts = [len(sample.boxes.class_id) for sample in each]
    assert batch.boxes.image_index.tolist() == [image for image, count in enumerate(counts) for _ in range(count)]
    assert batch.image.shape == batch.clean.shape == (4, 3, 56, 56)
    assert collate([samples_of(split)[0]]).boxes is None


def test_the_clean_image_has_the_geometry_and_not_the_colours(split):
    strong = AugmentParams(flip=True, brightness=0.4, contrast=0.4, saturation=0.5, blur_px=2.0)
    # around boxes, for a window without anything in it is black however its colours change
    plain = samples_of(split, augment=PLAIN.model_copy(update={"flip": True}), defect_share=1.0)
    moved = samples_of(split, augment=strong, defect_share=1.0)
    for number in range(10):
        assert torch.equal(moved[number].clean, plain[number].clean)
        assert not torch.equal(moved[number].image, moved[number].clean)


def test_blur_softens_and_saturation_moves_the_colours_apart():
    image = torch.zeros(3, 20, 24)
    image[0, :, 12:] = 1.0
    rough = lambda one: (one[0, :, 1:] - one[0, :, :-1]).abs().max()  # noqa: E731
    draw = np.random.default_rng(1)  # whose third number, the share of the largest sigma, is 0.14; that of 0 is 0.04
    blurred = augmented(draw, image, PLAIN.model_copy(update={"blur_px": 3.0}))
    assert rough(blurred) < 0.9 * rough(image)
    torch.testing.assert_close(blurred.mean(), image.mean(), atol=0.02, rtol=0)
    paler = augmented(draw, image, PLAIN.model_copy(update={"saturation": 1.0}))
    torch.testing.assert_close(paler.mean(0), image.mean(0), atol=0.35, rtol=0)
    assert not torch.equal(paler, image)


PIXELS = sum(height * width for height, width in SIZES_HW)


@pytest.mark.parametrize(
    ("room", "decoded"), [(4 * PIXELS, 3), (4 * PIXELS - 1, 24)], ids=["three colours and labels fit", "a byte less"]
)
def test_label_maps_are_decoded_once_where_all_can_be_kept(room, decoded, split, monkeypatch):
    counted = []

    def counting(png):
        counted.append(png)
        return decode_label_map(png)

    monkeypatch.setattr(module, "CACHE_BYTES", room)
    monkeypatch.setattr(module, "decode_label_map", counting)
    samples = samples_of(split)
    found = [samples.labels(number) for number in range(24)]
    assert len(counted) == decoded
    assert {int(value) for labels in found for value in labels.unique()} == {0, 1, 2, IGNORE}
