"""BoxTeacher (arXiv 2210.05174): BoxInst, and masks of an EMA teacher weighted by their confidence.

Pseudo-mask losses as released: noise-aware Dice, noise-reduced affinity counted per instance, both weighted by a mask's
confidence s and divided by the number of masks with s > 0; they rise with the pairwise term, and there is no burn-in of
its own. The confidence is the paper's s = sqrt(c * mean{p : p > 0.5, x in box}) (recalled, not verified); the release
takes sqrt(c) under the root and the whole thresholded mask, which is the same at c = 1 inside the box. The student
alone sees strong photometric augmentation: `batch.image`, where `batch.clean` is the EMA teacher's.

Departures:
- Boxes are annotations, so c = 1 for the EMA teacher's masks. There is no detection to assign to a box: its mask of box
  i is p_k > 0.5 inside it, and counts if its bounding box has an IoU of 0.5 with the part of the box that the window
  shows. The release assigns predictions greedily, with an occupancy test that lets the first one's match be stolen,
  and ignores the class.
- The fine head's mask serves both heads. Masks are thresholded at native pixels, and a cell of the grid holds its share
  of mask, so that what is thinner than a cell survives.
- The EMA teacher runs in evaluation mode with averaged buffers, where the release leaves it in train mode with its own.
- SAM as the source is our choice: c is then SAM's predicted IoU clamped to [0, 1], no detection score, and p its mean
  probability. With `sam_then_ema` (see `choose`) the EMA teacher's own c of 1 would win from the start, hence the fit.
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
    """`source`: whose masks: the EMA teacher's (`ema`, published), SAM's (`sam`), or SAM's until the EMA teacher's are
    better (`sam_then_ema`). `pixel`, `affinity`: weights of the pseudo-mask losses (0.5 and 0.1).
    """

    method: Literal["boxteacher"]
    source: Literal["ema", "sam", "sam_then_ema"]
    pixel: Weight
    affinity: Weight


class Method(BaseMethod):
    """BoxInst's losses, `pixel` and `affinity`; for the curves `mask_score`, a mean over boxes, and `ema_share` of
    them.
    """

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
