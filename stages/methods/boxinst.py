"""BoxInst (CVPR 2021): boxes alone, by projections and by neighbours of one colour. Formulas as released [C].

Departures: there is no detector, so box i of class k has the logits of the semantic heads for k [V: their sigmoid is
the softmax's p_k], of the binary head for defect, and both heads take part, each with its weight [O]. One channel
answers for all boxes of a class: what lies in another one is masked out of the projection and of the pairs. One
prediction a box, where a detector averages over up to 64 locations an image. A box raster is any overlap with a cell,
not its centre, or defects under 4 px would vanish; no rows at the bottom are ignored (the release leaves out 10 px of
COCO's images). Axes that the window cuts are not projected. Windows without a box teach nothing in the paper;
here the background outside all boxes is taught, `outside` [O]. The projection presses down what has no box, which is
the opposite of what Boxes2Pixels wants.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.losses.batch import Batch, Moment, Named, ramp
from stages.losses.grid import Head, Scene, heads, pool_mean, scene
from stages.losses.terms import DILATION, colour_similarity, edges, grow, log_same, mean_where, projection
from stages.methods.config import BoxInstParams, BoxLossParams
from stages.networks.student import Logits


def losses(
    logits: Logits, batch: Batch, params: BoxInstParams, moment: Moment, teacher: Logits | None
) -> tuple[Named, Named]:
    """`projection`, `pairwise` and `outside`. `teacher` is not used; no figures."""
    on = scene(batch, params.stride)
    return box_losses(heads(logits, on, params.fine, params.binary), on, batch, params, moment.progress), {}


def box_losses(seen: list[Head], on: Scene, batch: Batch, params: BoxLossParams, progress: float) -> Named:
    """What boxes teach without any mask: the three terms of BoxInst, weighted, summed over the heads."""
    similarity = similar(on, batch.clean)
    alike = similarity >= params.colour
    rise = ramp(progress, params.warmup)
    return {
        "projection": params.projection * sum(head.weight * projection_loss(head, on) for head in seen),
        "pairwise": rise * params.pairwise * sum(head.weight * pairwise_loss(head, on, alike) for head in seen),
        "outside": params.outside * sum(head.weight * outside_loss(head, on) for head in seen),
    }


def similar(on: Scene, clean: Tensor) -> Tensor:
    """(N, 8, h, w) colour similarity of each box's image, which has to be the one not augmented."""
    return colour_similarity(pool_mean(clean, on.stride))[on.boxes.image_index]


def projection_loss(head: Head, on: Scene) -> Tensor:
    """Mean over boxes of both Dice losses; zero of them without a box."""
    p = head.logits.sigmoid() * head.visible
    return projection(p, on.inside, on.whole_xy).sum() / max(len(p), 1)


def pairwise_loss(head: Head, on: Scene, alike: Tensor) -> Tensor:
    """-log P_same, averaged over the pairs of one colour of all boxes together. `alike` (N, 8, h, w) bool."""
    return mean_where(-log_same(head.logits), edges(on.inside, head.visible) & alike)


def outside_loss(head: Head, on: Scene) -> Tensor:
    """Mean -log p(background) over the known cells further from every box than pairs reach [O]."""
    return mean_where(-head.background, outside(on))


def outside(on: Scene) -> Tensor:
    """(B, h, w) bool: known cells further than DILATION from every box."""
    of_image = F.one_hot(on.boxes.image_index, len(on.known)).float()
    boxed = torch.einsum("nb,nhw->bhw", of_image, grow(on.inside, DILATION).float()) > 0
    return on.known & ~boxed
