"""BoxInst (CVPR 2021): boxes alone, by projections and by neighbours of one colour. Formulas as released.

Departures:
- There is no detector: box i of class k has the logits of the semantic heads for k (their sigmoid is exactly the
  softmax's p_k), of the binary head for defect; both heads take part, each with its weight. One prediction per box,
  where a detector averages over up to 64 locations per image.
- One channel answers for all boxes of a class: what lies in another one is masked out of the projection and of the
  pairs.
- A box covers every cell that it overlaps, not those whose centre it holds, or defects under 4 px would vanish; no rows
  at the bottom are ignored (the release leaves out 10 px of COCO's images). Axes that the window cuts are not
  projected.
- Windows without a box teach nothing in the paper; here the background outside all boxes is taught (`outside`).

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
    """`projection`, `pairwise` and `outside`."""

    reads_boxes = True
    reads_labels = False

    def losses(self, logits: Logits, batch: Batch, moment: Moment, ema: Logits | None) -> tuple[Named, Named]:
        on = scene(batch, self.params.stride)
        seen = heads(logits, on, self.params.fine, self.params.binary)
        return box_losses(seen, on, batch, self.params, moment.progress), {}
