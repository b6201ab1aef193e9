"""BoxInst (CVPR 2021): learns from boxes alone, by projections and by neighbours of similar colour. Formulas as
released.

Departures:
- There is no detector. The prediction for a box of class k is the fine head's logit of k against all other classes (its
  sigmoid is exactly the softmax's p_k), and the binary head's logit of defect; each head has its weight. So there is
  one prediction per box, where a detector averages over up to 64 locations per image.
- All boxes of a class share one channel: cells in another box of the class are masked out of the projection and of the
  pairs.
- A box covers every cell that it overlaps, not only those whose centre it holds, because defects under 4 px would
  vanish; no rows at the bottom are ignored (the release leaves out 10 px of COCO's images). Where the window cuts a box
  along x, its rows are not compared; along y, its columns.
- Windows without a box teach nothing in the paper; here the hardest of the background outside boxes has a loss
  (`outside`), a quarter as many cells as boxes cover.

The projection suppresses defects without a box, which is the opposite of what Boxes2Pixels wants.
"""

from typing import Literal

from stages.losses.batch import Batch, Moment
from stages.losses.grid import heads, scene
from stages.losses.instance import BoxLossParams, box_losses
from stages.losses.method import Method as BaseMethod
from stages.losses.method import Named
from stages.student.segmenter import Logits


class Params(BoxLossParams):
    method: Literal["boxinst"]


class Method(BaseMethod):
    """Losses `projection`, `pairwise` and `outside`."""

    reads_boxes = True
    reads_labels = False

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        on = scene(batch, self.params.stride)
        seen = heads(logits, on, self.params.fine, self.params.binary)
        return box_losses(seen, on, batch, self.params, moment.progress), {}
