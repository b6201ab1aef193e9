"""BoxTeacher (arXiv 2210.05174): BoxInst, and masks of an EMA teacher weighted by their confidence.

Pseudo-mask losses as released: noise-aware Dice, and noise-reduced affinity counted per instance, both weighted by a
mask's confidence s and divided by the number of masks with s > 0. Their weight rises as the pairwise term's does; there
is no separate burn-in. The confidence is the paper's s = sqrt(c * mean{p : p > 0.5, x in box}) (recalled, not
verified); the release takes sqrt(c) under the root and the whole thresholded mask, which is the same if c = 1 and the
mask lies in the box. Only the student sees strong photometric augmentation (`batch.image`); the EMA teacher sees
`batch.clean`.

Departures:
- Boxes are annotations, so c = 1 for the EMA teacher's masks. There is no detection to assign to a box: the teacher's
  mask of a box of class k is p_k > 0.5 inside the box, and counts if its bounding box has an IoU of at least 0.5 with
  the part of the box that the window shows. The release assigns predictions greedily, ignores their class, and has an
  occupancy test by which a later prediction can take the match of the first.
- The fine head's mask serves both heads. Masks are thresholded at full resolution, and a cell of the grid holds the
  share of its pixels that are mask, so that a mask thinner than a cell survives.
- The EMA teacher runs in evaluation mode with averaged buffers; the release leaves it in train mode with its own.
- SAM as the source is our choice: c is then SAM's predicted IoU clamped to [0, 1], which is no detection score, and p
  SAM's mean probability. With `sam_then_ema` the EMA teacher's masks, with their c of 1, would win from the start, so
  the fit of their bounding boxes takes the place of c in that comparison (see `choose`).
"""

from typing import Literal

from stages.losses.batch import Batch, Moment, ramp
from stages.losses.config import Weight
from stages.losses.grid import heads, scene
from stages.losses.instance import BoxLossParams, box_losses, pseudo_losses
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.losses.pseudo_masks import box_pixels, choose
from stages.student.segmenter import Logits


class Params(BoxLossParams):
    """`source` of the masks: the EMA teacher (`ema`, published), SAM (`sam`), or SAM until the EMA teacher's mask of
    the box is better (`sam_then_ema`). `pixel`, `affinity`: weights of the pseudo-mask losses (published: 0.5 and 0.1).
    """

    method: Literal["boxteacher"]
    source: Literal["ema", "sam", "sam_then_ema"]
    pixel: Weight
    affinity: Weight


class Method(BaseMethod):
    """BoxInst's losses, `pixel` and `affinity`. Curves: mean `mask_score`, `ema_share` of boxes with an EMA mask."""

    reads_boxes = True
    reads_labels = False
    reads_ema = True

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        params, on = self.params, scene(batch, self.params.stride)
        seen = heads(logits, on, params.fine, params.binary)
        pseudo, from_ema = choose(params.source, ema, on.boxes, box_pixels(batch, on.boxes))
        named = box_losses(seen, on, batch, params, moment.progress)
        rise = ramp(moment.progress, params.warmup)
        named |= pseudo_losses(seen, on, pseudo, rise * params.pixel, rise * params.affinity)
        boxes = max(len(from_ema), 1)
        return named, {"mask_score": pseudo.score.sum() / boxes, "ema_share": from_ema.sum() / boxes}
