"""Two-sided correction: its rules by hand, what it makes of corrupted masks, and what is left to Boxes2Pixels."""

import math

import pytest
import torch

from stages.data.tables import IGNORE
from stages.losses.batch import Moment
from stages.losses.grid import heads, scene
from stages.losses.histogram import BINS, REACH, count_probabilities
from stages.losses.instance import pairwise_loss, similar
from stages.losses.pixel import binary_loss, weighted_cross_entropy
from stages.losses.terms import projection
from stages.methods import two_sided
from stages.methods.two_sided import (
    BEYOND,
    DECAY,
    DEFECT,
    INSIDE,
    SOUND,
    Params,
    RunningHistograms,
    Thresholds,
    correct,
    observe,
)
from stages.student.segmenter import Logits
from tests.support.boxed import (
    UNREAD,
    batch_of,
    boxes_of,
    filled,
    flipped,
    flipped_logits,
    frozen,
    no_boxes,
    random_batch,
    random_logits,
    sure_of,
    total,
)

CORNERS = (4, 4, 16, 16)
MASK = (6, 6, 14, 14)
NO_MASKS = torch.zeros(0)


def at(labelled=0.1, beyond=1.0, classes=2) -> Thresholds:
    """Thresholds of all classes alike."""
    return Thresholds(*(torch.full((classes,), value) for value in (labelled, beyond)))


def params(**changes) -> Params:
    values = {"fine": 0.5, "binary": 0.5, "beta": 0.4, "warmup": 0.3, "believed": 0.5}
    values |= {"stride": 2, "projection": 1.0, "pairwise": 1.0, "colour": 0.3, **changes}
    return Params(method="two_sided", **values)


def moment(progress=0.5, **changes) -> tuple[Moment, Thresholds]:
    return Moment(progress, torch.tensor([0.5, 2.0, 3.0])), at(**changes)


def losses(logits, batch, params, now, ema):
    moment, thresholds = now
    return two_sided.losses(logits, batch, params, moment, ema, thresholds)


def one_box(candidates=None, **scores):
    return batch_of(boxes_of([CORNERS], filled(MASK), candidates=candidates, **scores))


def opinion(s: torch.Tensor, class_id: int = 0) -> Logits:
    """A teacher whose fine head gives (B, H, W) `s` to one class, and whose binary head is sure of everything."""
    s = s.clamp(1e-6, 1 - 1e-6)
    others = torch.full_like(s, -30.0)
    scores = [(1 - s).log(), *(s.log() if k == class_id else others for k in range(2))]
    return Logits(torch.stack(scores, dim=1), torch.stack([torch.zeros_like(s), torch.full_like(s, 30.0)], dim=1))


def corrected(batch, teacher, now=None, **changes):
    now, thresholds = now or moment()
    return correct(batch, teacher, params(**changes), now.progress, thresholds)


def test_a_mask_that_the_student_agrees_with_leaves_boxes2pixels_as_it_is():
    batch, logits = one_box(), random_logits(0, images=1)
    found, shown = losses(logits, batch, params(), moment(), frozen(sure_of(batch.labels)))
    assert shown["corrected_share"] == shown["dropped_share"] == 0
    weights = moment()[0].class_weights
    assert found["fine"].item() == pytest.approx(
        0.5 * weighted_cross_entropy(logits.fine, batch.labels, weights).item(), rel=1e-6
    )
    assert found["binary"].item() == pytest.approx(0.5 * binary_loss(logits.binary, batch.labels, 0.4).item(), rel=1e-5)


def test_a_perfect_student_has_no_loss():
    batch = one_box()
    logits = sure_of(batch.labels, logit=40.0)
    assert total(losses(logits, batch, params(), moment(), frozen(logits))[0]) < 1e-5


@pytest.mark.parametrize("corrupted", [filled((4, 4, 16, 16)), filled((10, 10, 16, 16))], ids=["dilated", "shifted"])
def test_what_a_corrupted_mask_invents_is_dropped_and_no_more(corrupted):
    sound = filled(MASK)
    teacher = opinion(sound.float() * 0.85 + 0.05)
    result = corrected(batch_of(boxes_of([CORNERS], corrupted)), teacher)
    assert torch.equal(result.labels > 0, corrupted & sound)
    assert torch.equal(result.false_positives, corrupted & ~sound)


def test_in_a_box_without_a_mask_background_teaches_nothing():
    batch = batch_of(boxes_of([CORNERS], torch.zeros(1, 20, 24, dtype=torch.bool)))
    inside = filled(CORNERS)[0]
    labels = corrected(batch, opinion(torch.full((1, 20, 24), 0.02))).labels[0]
    assert (labels[inside] == IGNORE).all()
    assert (labels[~inside] == 0).all()


def test_a_labelled_pixel_that_looks_more_like_background_than_background_is_a_false_positive():
    batch = one_box()
    s = filled(MASK).float() * 0.6 + 0.1
    s[0, 6:8, 6:14] = 0.01
    result = corrected(batch, opinion(s), moment(labelled=0.05))
    assert torch.equal(result.false_positives, filled((6, 6, 14, 8)))
    assert not result.labels[result.false_positives].any()
    assert torch.equal(result.labels[~result.false_positives], batch.labels[~result.false_positives])


def test_beyond_the_boxes_only_its_own_threshold_counts():
    batch = one_box()
    s = torch.full((1, 20, 24), 0.02)
    s[0, 17:19, 18:23] = 0.9
    assert not corrected(batch, opinion(s)).false_negatives.any()
    result = corrected(batch, opinion(s, class_id=1), moment(beyond=0.8))
    assert torch.equal(result.false_negatives, filled((18, 17, 23, 19)))
    assert (result.labels[result.false_negatives] == 2).all()


def test_background_becomes_a_defect_and_painted_pixels_background_only_where_the_image_is():
    for seed in range(5):
        batch, teacher = random_batch(seed), frozen(random_logits(seed))
        labels = batch.labels.clone()
        labels[:, :, 20:] = IGNORE
        batch = batch._replace(labels=labels)
        result = corrected(batch, teacher, moment(beyond=0.3, labelled=0.3))
        assert result.false_negatives.any()
        assert result.false_positives.any()
        assert (labels[result.false_negatives] == 0).all()
        assert (result.labels[result.false_negatives] > 0).all()
        assert (result.labels[result.false_positives] == 0).all()
        assert ((labels[result.false_positives] > 0) & (labels[result.false_positives] != IGNORE)).all()
        same = ~(result.false_negatives | result.false_positives)
        assert torch.equal(result.labels[same], labels[same])


def test_thresholds_of_a_class_that_was_not_seen_change_nothing_however_sure_the_teacher_is():
    """s is exactly 0 and exactly 1."""
    batch = one_box()
    teacher = frozen(sure_of((batch.labels == 0).long(), logit=200.0))
    assert set(two_sided.defect_probability(teacher).unique().tolist()) == {0.0, 1.0}
    result = corrected(batch, teacher, moment(labelled=0.0, beyond=1.0))
    assert torch.equal(result.labels, batch.labels)


def test_a_defect_is_as_probable_as_both_heads_say_together():
    s = torch.tensor([[[0.9, 0.5, 0.1]]])
    doubtful = opinion(s)._replace(binary=torch.tensor([0.0, -math.log(3)]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3))
    torch.testing.assert_close(two_sided.defect_probability(doubtful), s / 4)
    torch.testing.assert_close(two_sided.defect_probability(doubtful._replace(binary=None)), s)


def test_shares_are_of_background_and_of_labelled_pixels():
    """16 pixels become background, 10 a defect; 8 x 8 are labelled."""
    batch, s = one_box(), filled(MASK).float() * 0.6 + 0.1
    s[0, 6:8, 6:14], s[0, 17:19, 18:23] = 0.01, 0.9
    _, shown = losses(random_logits(0, images=1), batch, params(), moment(labelled=0.05, beyond=0.8), opinion(s))
    assert shown["corrected_share"].item() == pytest.approx(10 / (480 - 64))
    assert shown["dropped_share"].item() == pytest.approx(16 / 64)


def test_what_another_mask_labels_in_a_box_without_a_mask_stays():
    masks = torch.cat([torch.zeros(1, 20, 24, dtype=torch.bool), filled((2, 6, 10, 9))])
    batch = batch_of(boxes_of([CORNERS, (2, 6, 10, 9)], masks, class_id=[0, 1]))
    labels = corrected(batch, opinion(torch.full((1, 20, 24), 0.2))).labels
    assert torch.equal(labels == 2, filled((2, 6, 10, 9)))
    assert torch.equal(labels == IGNORE, filled(CORNERS) & ~filled((2, 6, 10, 9)))


def test_background_in_a_box_without_a_mask_is_agreed_on_by_nobody():
    batch = batch_of(boxes_of([CORNERS], torch.zeros(1, 20, 24, dtype=torch.bool)))
    counts = observe(batch, opinion(torch.full((1, 20, 24), 0.3)), 2).sum(-1)[:, 0]
    assert (counts[SOUND], counts[INSIDE]) == (0, 144)


def test_before_the_warm_up_nothing_is_corrected():
    batch, teacher = one_box(), opinion(torch.full((1, 20, 24), 0.9))
    result = corrected(batch, teacher, moment(progress=0.29, beyond=0.5))
    assert not result.false_negatives.any()
    assert not result.false_positives.any()
    assert corrected(batch, teacher, moment(progress=0.3, beyond=0.5)).false_negatives.any()


def test_labels_that_are_not_known_teach_neither_head():
    batch = batch_of(boxes_of([CORNERS], torch.zeros(1, 20, 24, dtype=torch.bool)))
    logits = random_logits(5, images=1)
    sum(losses(logits, batch, params(), moment(), frozen(random_logits(6, images=1)))[0].values()).backward()
    inside = filled(CORNERS)[0]
    for gradient in (logits.fine.grad, logits.binary.grad):
        assert not gradient[0][:, inside].any()
        assert gradient[0][:, ~inside].abs().min() > 0
    everywhere = boxes_of([(0, 0, 24, 20)], torch.zeros(1, 20, 24, dtype=torch.bool))
    found, _ = losses(logits, batch_of(everywhere), params(), moment(), frozen(logits))
    assert total(found) == 0


def test_without_boxes_it_teaches_background():
    logits = random_logits(7)
    batch = batch_of(no_boxes(), images=2)
    found, shown = losses(logits, batch, params(), moment(), frozen(logits))
    assert all(torch.isfinite(value) for value in [*found.values(), *shown.values()])
    sum(found.values()).backward()
    assert (logits.fine.grad[:, 0] < 0).all()
    assert (logits.binary.grad[:, 0] < 0).all()


def test_flipping_everything_changes_nothing():
    batch, logits, teacher = random_batch(8), random_logits(8), frozen(random_logits(9))
    now = moment(beyond=0.6)
    found, shown = losses(logits, batch, params(), now, teacher)
    mirrored, same = losses(flipped_logits(logits), flipped(batch), params(), now, flipped_logits(teacher))
    assert total(mirrored) == pytest.approx(total(found), rel=1e-5)
    assert {k: v.item() for k, v in same.items()} == pytest.approx({k: v.item() for k, v in shown.items()})


def test_the_teacher_gets_no_gradient():
    batch, logits, teacher = random_batch(10), random_logits(10), random_logits(11)
    sum(losses(logits, batch, params(), moment(), teacher)[0].values()).backward()
    assert teacher.fine.grad is None


def test_what_is_counted_of_a_batch():
    candidates = filled(MASK)[:, None].repeat(1, 4, 1, 1)
    candidates[0, 2] |= filled((14, 6, 16, 14))[0]
    batch = one_box(candidates)
    s = torch.full((1, 20, 24), 0.3)
    s[filled(MASK)] = 0.8
    seen = observe(batch, opinion(s), 2)
    assert seen.sum(-1).tolist() == [[64, 0], [144 - 64 - 16, 0], [144 - 64, 0], [20 * 24 - 144, 0]]
    assert torch.equal(seen[DEFECT, 0], count_probabilities(torch.full((64,), 0.8)))


def test_probabilities_of_0_and_1_are_counted_at_the_ends():
    edges = torch.linspace(-REACH, REACH, BINS + 1).sigmoid()
    counts = count_probabilities(torch.tensor([[0.0, 1.0], [0.5, 1.0]]))
    assert (counts[0], counts[BINS // 2], counts[edges[:-1] > 0.9999].sum(), counts.sum()) == (1, 1, 2, 4)


def test_thresholds_are_running_medians():
    typical = RunningHistograms(2)
    start = typical.thresholds()
    assert typical.tau().tolist() == start.beyond.tolist() == [1, 1]
    assert start.labelled.tolist() == [0, 0]
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(4000, generator=draw)
    pixels = torch.zeros(4, 2, BINS)
    pixels[DEFECT, 0], pixels[SOUND, 1] = count_probabilities(values), count_probabilities(values * 0.01)
    pixels[DEFECT, 1] = count_probabilities(values * 0.1 + 0.5)
    typical.update(pixels, NO_MASKS)
    found = typical.thresholds()
    assert typical.tau()[0].item() == pytest.approx(values.quantile(0.95).item(), abs=0.02)
    assert found.labelled[1].item() == pytest.approx(values.median().item() * 0.01, rel=0.05)
    assert typical.tau()[1].item() == pytest.approx(0.595, abs=0.02)
    assert found.labelled[0].item() == 0, "of a class whose background was not seen yet no label is dropped"


def test_of_what_nobody_doubts_a_twentieth_at_most_is_called_a_false_positive():
    """A class that the student does not know yet: what is labelled with it looks like any background."""
    values = 0.01 * torch.rand(4000, generator=torch.Generator().manual_seed(0))
    pixels = torch.zeros(4, 1, BINS)
    pixels[DEFECT, 0] = pixels[SOUND, 0] = count_probabilities(values)
    typical = RunningHistograms(1)
    typical.update(pixels, NO_MASKS)
    assert (values < typical.thresholds().labelled[0]).float().mean().item() == pytest.approx(0.05, abs=0.01)


def test_what_was_seen_fades_and_survives_a_checkpoint():
    seen = observe(one_box(), opinion(torch.full((1, 20, 24), 0.4)), 2)
    typical, resumed = RunningHistograms(2), RunningHistograms(2)
    typical.update(seen, torch.tensor([0.7]))
    resumed.load_state_dict(typical.state_dict())
    for one in (typical, resumed):
        one.update(seen, torch.tensor([0.2]))
    assert torch.equal(typical.pixels, resumed.pixels)
    assert torch.equal(typical.masks, resumed.masks)
    assert typical.masks.sum().item() == pytest.approx(1 + DECAY)
    assert typical.pixels[DEFECT, 0].sum().item() == pytest.approx(64 * (1 + DECAY))


@pytest.mark.parametrize("clutter", [10, 200])
def test_beyond_the_boxes_surprises_are_believed_only_where_boxes_have_more_of_them(clutter):
    typical = RunningHistograms(1)
    typical.pixels[DEFECT, 0] = count_probabilities(torch.full((100,), 0.6))
    typical.pixels[INSIDE, 0] = count_probabilities(torch.cat([torch.full((30,), 0.7), torch.full((20,), 0.9)]))
    typical.pixels[BEYOND, 0] = count_probabilities(
        torch.cat([torch.full((40,), 0.7), torch.full((clutter // 10,), 0.9), torch.full((clutter,), 0.3)])
    )
    found = typical.thresholds()
    edges = torch.linspace(-REACH, REACH, BINS + 1).sigmoid()
    level = found.beyond.item()
    assert level >= typical.tau().item()
    beyond, surprise = (typical.pixels[kind, 0][edges[:-1] >= level].sum() for kind in (BEYOND, INSIDE))
    assert beyond <= surprise
    if clutter == 10:  # 41 against 50 from tau up
        assert level < 0.7
    else:  # 60 against 50, and still 20 against 20 above 0.7
        assert 0.7 < level < 0.9


def test_where_clutter_is_always_more_nothing_beyond_the_boxes_is_believed():
    typical = RunningHistograms(1)
    typical.pixels[DEFECT, 0] = count_probabilities(torch.full((100,), 0.6))
    typical.pixels[INSIDE, 0] = count_probabilities(torch.full((30,), 0.7))
    typical.pixels[BEYOND, 0] = count_probabilities(torch.cat([torch.full((40,), 0.7), torch.full((5,), 0.99)]))
    assert typical.thresholds().beyond.item() == 1


def doubtful(separation=(0.2, 0.9), agreement=0.9):
    """Two boxes of class 0 side by side, with these separations; their masks fill the middle."""
    corners = [(2, 4, 10, 16), (13, 4, 22, 16)]
    masks = torch.cat([filled((4, 6, 8, 14)), filled((15, 6, 20, 14))])
    boxes = boxes_of(corners, masks)
    scores = torch.tensor(separation)[:, None].expand(2, 4)
    return batch_of(boxes._replace(separation=scores, agreement=torch.full((2, 4), agreement)))


def test_the_evidence_for_a_mask_is_separation_times_agreement():
    assert two_sided.evidence_for_masks(doubtful((0.5, 0.6), agreement=0.9).boxes).tolist() == pytest.approx(
        [0.45, 0.54]
    )


@pytest.mark.parametrize(
    "seen, believed, doubted",
    [
        ([0.9, 0.9, 0.1], 0.5, 0.0),
        ([0.9, 0.1, 0.1], 0.5, 0.5),
        ([0.9, 0.1, 0.1], 0.0, 0.0),
        ([0.9, 0.1, 0.1], 1.0, 1.0),
        ([], 0.5, 0.0),
    ],
    ids=["most have evidence", "most have none", "all are believed", "none is believed", "none was seen"],
)
def test_masks_without_evidence_are_doubted_where_the_typical_mask_has_none(seen, believed, doubted):
    """Of two boxes with evidence of 0.18 and 0.81."""
    _, shown = trained_by(doubtful(), random_logits(3, images=1), seen=seen, believed=believed)
    assert shown["doubted_share"] == doubted


def test_evidence_of_just_what_is_believed_is_enough():
    _, shown = trained_by(doubtful((0.5, 0.4), agreement=1.0), random_logits(3, images=1))
    assert shown["doubted_share"] == 0.5
    assert two_sided.Method(params(believed=1.0), UNREAD).judged_by_masks(), "before a mask was seen"


def test_val_judges_the_weights_while_the_typical_mask_is_believed():
    method = two_sided.Method(params(), UNREAD)
    assert method.judged_by_masks()
    for evidence, judges in ((0.4, False), (0.9, True)):
        method.histograms.update(torch.zeros(4, 2, BINS), torch.full((9,), evidence))
        assert method.judged_by_masks() == judges


def test_what_was_seen_longer_ago_counts_less_for_the_typical_mask():
    typical = RunningHistograms(1)
    nothing = torch.zeros(4, 1, BINS)
    for evidence in [0.8] * 100 + [0.2] * 40:
        typical.update(nothing, torch.tensor([evidence]))
    assert typical.typical_evidence().item() == pytest.approx(0.8, abs=0.02)
    for _ in range(20):
        typical.update(nothing, torch.tensor([0.2]))
    assert typical.typical_evidence().item() == pytest.approx(0.2, abs=0.02)


def test_all_pixels_of_a_doubted_box_are_unknown_but_those_of_a_believed_mask():
    batch = doubtful()
    overlapping = batch.boxes.xyxy.clone()
    overlapping[0, 2] = 17  # reaches into the other one, and its mask
    batch = batch._replace(boxes=batch.boxes._replace(xyxy=overlapping))
    labels = two_sided.without(batch, torch.tensor([True, False]))[0]
    unknown = filled((2, 4, 17, 16))[0] & ~filled((15, 6, 20, 14))[0]
    assert torch.equal(labels == IGNORE, unknown)
    assert torch.equal(labels[~unknown], batch.labels[0][~unknown])


def trained_by(batch, logits, seen=(0.1,), **changes):
    """`seen`: evidence for the masks of the steps before."""
    method = two_sided.Method(params(**changes), UNREAD)
    method.histograms.update(torch.zeros(4, 2, BINS), torch.tensor(seen))
    return method.losses(logits, batch, moment(0.5)[0], frozen(random_logits(9, images=1)))


def test_doubted_boxes_teach_by_their_sides_and_colours_and_believed_ones_by_their_masks():
    batch, logits = doubtful(), random_logits(3, images=1)
    batch = batch._replace(clean=torch.full_like(batch.clean, 0.5))
    named, shown = trained_by(batch, logits)
    assert shown["doubted_share"] == 0.5
    on = scene(batch, 2)
    alike = similar(on, batch.clean) >= 0.3
    first = torch.tensor([True, False])
    seen = heads(logits, on, 0.5, 0.5)
    of_first = sum(
        head.weight * projection(head.logits.sigmoid() * head.visible, on.inside, on.whole_xy)[0] / 2 for head in seen
    )
    assert named["projection"].item() == pytest.approx(of_first.item(), rel=1e-5)
    pairs = sum(head.weight * pairwise_loss(head, on, alike & first[:, None, None, None]) for head in seen)
    assert 0 < named["pairwise"].item() == pytest.approx(0.5 * pairs.item(), rel=1e-5)


def test_a_box_beyond_the_window_shifts_no_doubt_to_another():
    batch, logits = doubtful(), random_logits(3, images=1)
    boxes = batch.boxes.where(torch.tensor([1, 0, 1]))
    boxes.xyxy[0] = torch.tensor([30.0, 4.0, 40.0, 16.0])
    named, _ = trained_by(batch._replace(boxes=boxes), logits)
    wanted, _ = trained_by(batch, logits)
    assert 0 < named["projection"].item() == pytest.approx(wanted["projection"].item())


def test_pixels_of_a_doubted_box_are_not_counted_and_of_a_believed_mask_only_those_in_its_box():
    """In the doubted box, at the left, some background is trusted; the believed mask reaches into it."""
    batch, method = doubtful(), two_sided.Method(params(), UNREAD)
    method.histograms.update(torch.zeros(4, 2, BINS), torch.tensor([0.1]))
    method.losses(
        random_logits(3, images=1),
        batch._replace(trusted=filled((2, 4, 4, 6))),
        moment(0.5)[0],
        frozen(random_logits(9, images=1)),
    )
    assert method.histograms.pixels[INSIDE, 0].sum() == 9 * 12 - 5 * 8
    spilling = batch.boxes.candidates.clone()
    spilling[1] |= filled((8, 6, 15, 14))[0]
    labels = two_sided.without(
        batch._replace(boxes=batch.boxes._replace(candidates=spilling)), torch.tensor([True, False])
    )
    assert torch.equal(labels == IGNORE, filled((2, 4, 10, 16)))


def test_where_all_masks_are_believed_boxes_add_nothing():
    named, shown = trained_by(doubtful((0.9, 0.9)), random_logits(3, images=1))
    assert (named["projection"].item(), named["pairwise"].item(), shown["doubted_share"].item()) == (0, 0, 0)


def test_what_a_doubted_mask_says_changes_nothing():
    """Another mask in the doubted box: the same losses."""
    batch, logits = doubtful(), random_logits(3, images=1)
    moved = batch.boxes.candidates.clone()
    moved[0] = filled((3, 5, 9, 9))
    other = batch._replace(boxes=batch.boxes._replace(candidates=moved), labels=batch.labels.clone())
    other.labels[0][filled((2, 4, 10, 16))[0]] = 0
    other.labels[0][filled((3, 5, 9, 9))[0]] = 1
    first, second = trained_by(batch, logits)[0], trained_by(other, logits)[0]
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}
