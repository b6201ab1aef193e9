"""Two-sided correction: weights and rules by hand, what corrupted masks weigh, and what is left to Boxes2Pixels."""

import pytest
import torch

from stages.student.model import Logits
from stages.supervision.batch import IGNORE, Moment, Thresholds
from stages.supervision.boxes2pixels import binary_loss, correct_labels, weighted_cross_entropy
from stages.supervision.config import TwoSidedParams
from stages.supervision.two_sided import agreement, balanced, correct, evidence, losses, observe, soft_iou
from stages.supervision.typical import BEYOND, BINS, DECAY, DEFECT, REACH, SOUND, SURPRISE, Typical, count_probabilities
from tests.boxed import (
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


def at(missed=0.6, invented=0.1, beyond=1.0, sam=0.5, student=0.5, classes=2) -> Thresholds:
    """Thresholds of all classes alike."""
    by_class = (torch.full((classes,), value) for value in (missed, invented, beyond))
    return Thresholds(*by_class, torch.tensor(sam), torch.tensor(student))


def params(**changes) -> TwoSidedParams:
    values = {"fine": 0.5, "binary": 0.5, "beta": 0.4, "tau": "typical", "warmup": 0.3, **changes}
    return TwoSidedParams(method="two_sided", **values)


def moment(progress=0.5, **changes) -> Moment:
    return Moment(progress, torch.tensor([0.5, 2.0, 3.0]), at(**changes))


def one_box(candidates=None, **scores):
    return batch_of(boxes_of([CORNERS], filled(MASK), candidates=candidates, **scores))


def opinion(s: torch.Tensor, class_id: int = 0) -> Logits:
    """A teacher whose fine head gives (B, H, W) `s` to one class, and whose binary head is sure of everything."""
    s = s.clamp(1e-6, 1 - 1e-6)
    others = torch.full_like(s, -30.0)
    scores = [(1 - s).log(), *(s.log() if k == class_id else others for k in range(2))]
    return Logits(torch.stack(scores, dim=1), torch.stack([torch.zeros_like(s), torch.full_like(s, 30.0)], dim=1))


def corrected(batch, teacher, now=None, **changes):
    return correct(evidence(batch, teacher), batch, teacher, params(**changes), now or moment())


def test_agreement_by_hand():
    masks = torch.zeros(1, 3, 2, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 1, :, :2] = True
    valid = torch.tensor([[True, True, False]])
    # IoU of the first two: 2 of 6; both pairs with the invalid one: 0
    assert agreement(masks, valid).item() == pytest.approx((2 / 6) / 3)
    assert agreement(masks[:, :1], valid[:, :1]).item() == 1
    assert agreement(torch.zeros_like(masks), valid | True).item() == 1, "all of them lie outside the window"


@pytest.mark.parametrize("seed", range(5))
def test_soft_iou_equals_a_loop(seed):
    draw = torch.Generator().manual_seed(seed)
    p, inside = torch.rand(1, 6, 8, generator=draw), filled((1, 1, 7, 6), (6, 8))
    mask = (torch.rand(1, 6, 8, generator=draw) < 0.4) & inside
    common = union = 0.0
    for y, x in inside[0].nonzero().tolist():
        a, b = p[0, y, x].item(), mask[0, y, x].item()
        common, union = common + a * b, union + a + b - a * b
    assert soft_iou(p, mask, inside).item() == pytest.approx(common / union)
    assert soft_iou(p, torch.zeros_like(mask), inside) == 1, "a mask beyond the window has nothing to be asked about"


def test_a_mask_on_which_all_agree_leaves_boxes2pixels_as_it_is():
    batch, logits = one_box(), random_logits(0, images=1)
    found, figures = losses(logits, batch, params(), moment(), frozen(sure_of(batch.labels)))
    assert figures["mask_weight"] == 1
    assert figures["corrected_share"] == figures["dropped_share"] == 0
    weights = moment().class_weights
    assert found["fine"].item() == pytest.approx(
        0.5 * weighted_cross_entropy(logits.fine, batch.labels, weights).item(), rel=1e-6
    )
    assert found["binary"].item() == pytest.approx(0.5 * binary_loss(logits.binary, batch.labels, 0.4).item(), rel=1e-5)


def test_a_perfect_student_has_no_loss():
    batch = one_box()
    logits = sure_of(batch.labels, logit=40.0)
    assert total(losses(logits, batch, params(), moment(), frozen(logits))[0]) < 1e-5


def test_weights_by_hand_before_the_student_has_a_say():
    """Candidates: the mask, twice; the whole box; a corner of the mask. Painted is the first."""
    corner = filled((6, 6, 10, 10))
    candidates = torch.stack([filled(MASK)[0], filled(MASK)[0], filled(CORNERS)[0], corner[0]])[None]
    batch = one_box(candidates, predicted_iou=0.8)
    weights = corrected(batch, random_logits(1, images=1), moment(progress=0.1, sam=0.9)).weights[0]
    # pairs: 1; 64/144 twice; 16/64 twice; 16/144
    trust = 0.8 * (1 + 2 * 64 / 144 + 2 * 16 / 64 + 16 / 144) / 6 / 0.9
    assert weights[7, 7].item() == pytest.approx(trust)
    assert weights[12, 12].item() == pytest.approx(0.75 * trust)
    assert weights[5, 5].item() == pytest.approx(0.75 * trust), "background that one of four calls a defect"
    assert weights[0, 0].item() == 1, "background outside all boxes"


@pytest.mark.parametrize(
    "corrupted",
    [filled((4, 4, 16, 16)), filled((10, 10, 16, 16)), torch.zeros(1, 20, 24, dtype=torch.bool)],
    ids=["dilated", "shifted", "emptied"],
)
@pytest.mark.parametrize("all_alike", [False, True], ids=["one candidate", "all candidates"])
def test_a_corrupted_mask_weighs_visibly_less(corrupted, all_alike):
    """Even where SAM's candidates are wrong together, the student's opinion is left to tell."""
    sound = filled(MASK)
    teacher = opinion(sound.float() * 0.85 + 0.05)
    others = corrupted if all_alike else sound
    candidates = torch.cat([corrupted, others, others, others])[None]
    batch = batch_of(boxes_of([CORNERS], corrupted, candidates=candidates))
    good = corrected(one_box(), teacher, moment(sam=0.9, student=0.8)).weights[0]
    result = corrected(batch, teacher, moment(sam=0.9, student=0.8))
    inside = filled(CORNERS)[0]
    assert good[inside].min() > 0.99
    taken = result.weights[0][inside & ~result.missed[0]]
    assert taken.mean() < 0.7
    if not corrupted.any():
        assert taken.max() == 0
        assert all_alike or torch.equal(result.missed, sound), "what the other candidates and the student have"


def test_doubt_about_one_pixel_is_trust_in_another():
    labels = torch.tensor([[[1, 1, 2, 0, 0, 0, IGNORE]]])
    weights = torch.tensor([[[0.2, 0.4, 0.0, 0.5, 1.0, 0.7, 1.0]]])
    in_boxes = torch.tensor([[[True, True, True, True, True, False, True]]])
    result = balanced(weights, labels, in_boxes)
    torch.testing.assert_close(result, torch.tensor([[[1.0, 2.0, 0.0, 2 / 3, 4 / 3, 0.7, 1.0]]]))
    torch.testing.assert_close(balanced(3 * weights, labels, in_boxes)[..., :5], result[..., :5])
    assert balanced(torch.zeros_like(weights), labels, in_boxes).sum() == 0


def test_background_that_a_candidate_and_the_student_call_a_defect_was_missed():
    candidates = filled(MASK)[:, None].repeat(1, 4, 1, 1)
    candidates[0, 2] |= filled((14, 6, 16, 14))[0]
    batch = one_box(candidates)
    s = torch.full((1, 20, 24), 0.02)
    s[0, 6:12, 5:16] = 0.7  # left of the mask no candidate has it; the right strip one has, but down to row 12 alone
    result = corrected(batch, opinion(s), moment(invented=0.0))
    assert torch.equal(result.missed, filled((14, 6, 16, 12)))
    assert (result.labels[result.missed] == 1).all()
    assert result.weights[result.missed].unique().tolist() == pytest.approx([2 / 5]), "one of four, and the student"
    assert not corrected(batch, opinion(s), moment(missed=0.75)).missed.any()


def test_a_missed_pixel_gets_the_class_of_the_smallest_box_around_it():
    corners, masks = [(0, 0, 20, 18), (4, 4, 14, 14)], torch.cat([filled((0, 0, 3, 3)), filled((5, 5, 8, 8))])
    candidates = masks[:, None].repeat(1, 4, 1, 1)
    candidates[:, 1] = torch.cat([filled(c) for c in corners])
    batch = batch_of(boxes_of(corners, masks, class_id=[1, 0], candidates=candidates))
    result = corrected(batch, opinion(torch.full((1, 20, 24), 0.9)))
    assert result.labels[0, 10, 10] == 1
    assert result.labels[0, 16, 16] == 2


def test_a_painted_pixel_that_looks_more_like_background_than_background_was_invented():
    batch = one_box()
    s = filled(MASK).float() * 0.6 + 0.1
    s[0, 6:8, 6:14] = 0.01
    result = corrected(batch, opinion(s), moment(invented=0.05))
    assert torch.equal(result.invented, filled((6, 6, 14, 8)))
    assert not result.weights[result.invented].any()
    assert torch.equal(result.labels, batch.labels), "it teaches nothing; it is not called background"


def test_beyond_the_boxes_only_its_own_threshold_counts():
    batch = one_box()
    s = torch.full((1, 20, 24), 0.02)
    s[0, 17:19, 18:23] = 0.9
    assert not corrected(batch, opinion(s)).missed.any()
    result = corrected(batch, opinion(s, class_id=1), moment(beyond=0.8))
    assert torch.equal(result.missed, filled((18, 17, 23, 19)))
    assert (result.labels[result.missed] == 2).all()


def test_only_background_becomes_a_defect_and_only_where_the_photograph_is():
    for seed in range(5):
        batch, teacher = random_batch(seed), frozen(random_logits(seed))
        labels = batch.labels.clone()
        labels[:, :, 20:] = IGNORE
        batch = batch._replace(labels=labels)
        result = corrected(batch, teacher, moment(missed=0.05, beyond=0.3))
        assert (labels[result.missed] == 0).all()
        assert (result.labels[result.missed] > 0).all()
        assert torch.equal(result.labels[~result.missed], labels[~result.missed])
        assert result.weights.min() >= 0
        assert result.weights.max() <= 1


def test_before_the_warm_up_nothing_is_corrected():
    batch, teacher = one_box(), opinion(torch.full((1, 20, 24), 0.9))
    result = corrected(batch, teacher, moment(progress=0.29, beyond=0.5))
    assert not result.missed.any()
    assert not result.invented.any()
    assert corrected(batch, teacher, moment(progress=0.3, beyond=0.5)).missed.any()


def test_a_fixed_tau_is_the_papers_rule():
    batch, logits, teacher = one_box(), random_logits(2, images=1, spread=3.0), frozen(random_logits(3, images=1))
    found, figures = losses(logits, batch, params(tau=0.8), moment(invented=0.0), teacher)
    labels, changed = correct_labels(logits.fine, batch.labels, 0.8)
    assert changed.any()
    assert figures["corrected_share"].item() == pytest.approx((changed.sum() / (batch.labels == 0).sum()).item())
    weights = torch.where(changed, 1.0, corrected(batch, teacher, moment(invented=0.0), tau=0.8).weights)
    weights = balanced(weights, labels, filled(CORNERS))
    wanted = 0.5 * weighted_cross_entropy(logits.fine, labels, moment().class_weights, weights)
    assert found["fine"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_weighted_losses_equal_a_loop():
    draw = torch.Generator().manual_seed(4)
    logits, labels = torch.randn(1, 3, 3, 4, generator=draw), torch.randint(0, 3, (1, 3, 4), generator=draw)
    weights, w = torch.rand(1, 3, 4, generator=draw), [0.5, 2.0, 3.0]
    labels[0, 0, 0], labels[0, 1, 1] = IGNORE, 2
    total_ce, hit, invented, missed, known = 0.0, 0.0, 0.0, 0.0, 0
    binary = logits[:, :2]
    for y in range(3):
        for x in range(4):
            label, weight = labels[0, y, x].item(), weights[0, y, x].item()
            if label == IGNORE:
                continue
            known += 1
            total_ce -= weight * w[label] * logits[0, :, y, x].log_softmax(0)[label].item()
            p, g = binary[0, :, y, x].softmax(0)[1].item(), float(label > 0)
            hit, invented, missed = (
                hit + weight * p * g,
                invented + weight * p * (1 - g),
                missed + weight * (1 - p) * g,
            )
    found = weighted_cross_entropy(logits, labels, torch.tensor(w), weights).item()
    assert found == pytest.approx(total_ce / known, rel=1e-5)
    assert binary_loss(binary, labels, 0.4, weights).item() == pytest.approx(
        1 - hit / (hit + 0.4 * invented + missed), abs=1e-4
    )


def test_labels_without_weight_teach_neither_head():
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
    found, figures = losses(logits, batch, params(), moment(), frozen(logits))
    assert all(torch.isfinite(value) for value in [*found.values(), *figures.values()])
    sum(found.values()).backward()
    assert (logits.fine.grad[:, 0] < 0).all()
    assert (logits.binary.grad[:, 0] < 0).all()


def test_flipping_everything_changes_nothing():
    batch, logits, teacher = random_batch(8), random_logits(8), frozen(random_logits(9))
    now = moment(missed=0.3, beyond=0.6)
    found, figures = losses(logits, batch, params(), now, teacher)
    mirrored, same = losses(flipped_logits(logits), flipped(batch), params(), now, flipped_logits(teacher))
    assert total(mirrored) == pytest.approx(total(found), rel=1e-5)
    assert {k: v.item() for k, v in same.items()} == pytest.approx({k: v.item() for k, v in figures.items()})


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
    assert seen.pixels.sum(-1).tolist() == [[64, 0], [144 - 64 - 16, 0], [144 - 64, 0], [20 * 24 - 144, 0]]
    assert torch.equal(seen.pixels[DEFECT, 0], count_probabilities(torch.full((64,), 0.8)))
    assert seen.boxes.sum(-1).tolist() == [1, 1]


def test_thresholds_are_running_medians():
    typical = Typical(2)
    start = typical.thresholds()
    assert start.missed.tolist() == start.beyond.tolist() == [1, 1]
    assert start.invented.tolist() == [0, 0]
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(4000, generator=draw)
    pixels = torch.zeros(4, 2, BINS)
    pixels[DEFECT, 0], pixels[SOUND, 1] = count_probabilities(values), count_probabilities(values * 0.01)
    boxes = torch.zeros(2, 64)
    boxes[0, 16], boxes[1, 48] = 1, 1
    typical.update(type(observe(one_box(), opinion(torch.ones(1, 20, 24) / 2), 2))(pixels, boxes))
    found = typical.thresholds()
    assert found.missed[0].item() == pytest.approx(values.median().item(), abs=0.02)
    assert found.invented[1].item() == pytest.approx(values.median().item() * 0.01, rel=0.05)
    assert (found.missed[1].item(), found.invented[0].item()) == (1, 0), "a class not seen yet is left alone"
    assert (found.sam.item(), found.student.item()) == pytest.approx((16.5 / 64, 48.5 / 64))


def test_what_was_seen_fades_and_survives_a_checkpoint():
    seen = observe(one_box(), opinion(torch.full((1, 20, 24), 0.4)), 2)
    typical, resumed = Typical(2), Typical(2)
    typical.update(seen)
    resumed.load_state_dict(typical.state_dict())
    for one in (typical, resumed):
        one.update(seen)
    assert torch.equal(typical.pixels, resumed.pixels)
    assert typical.pixels[DEFECT, 0].sum().item() == pytest.approx(64 * (1 + DECAY))


@pytest.mark.parametrize("clutter", [10, 200])
def test_beyond_the_boxes_surprises_are_believed_only_where_boxes_have_more_of_them(clutter):
    typical = Typical(1)
    typical.pixels[DEFECT, 0] = count_probabilities(torch.full((100,), 0.6))
    typical.pixels[SURPRISE, 0] = count_probabilities(torch.cat([torch.full((30,), 0.7), torch.full((20,), 0.9)]))
    typical.pixels[BEYOND, 0] = count_probabilities(
        torch.cat([torch.full((40,), 0.7), torch.full((clutter // 10,), 0.9), torch.full((clutter,), 0.3)])
    )
    found = typical.thresholds()
    edges = torch.linspace(-REACH, REACH, BINS + 1).sigmoid()
    level = found.beyond.item()
    assert level >= found.missed.item()
    beyond, surprise = (typical.pixels[kind, 0][edges[:-1] >= level].sum() for kind in (BEYOND, SURPRISE))
    assert beyond <= surprise
    if clutter == 10:  # 41 against 50 from tau up
        assert level < 0.7
    else:  # 60 against 50, and still 20 against 20 above 0.7
        assert 0.7 < level < 0.9


def test_where_clutter_is_always_more_nothing_beyond_the_boxes_is_believed():
    typical = Typical(1)
    typical.pixels[DEFECT, 0] = count_probabilities(torch.full((100,), 0.6))
    typical.pixels[SURPRISE, 0] = count_probabilities(torch.full((30,), 0.7))
    typical.pixels[BEYOND, 0] = count_probabilities(torch.cat([torch.full((40,), 0.7), torch.full((5,), 0.99)]))
    assert typical.thresholds().beyond.item() == 1
