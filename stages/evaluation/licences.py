"""Licences of the weights that section `weights` of params.yaml can name, for the model card.

The names are declared in stages/checkpoints/, on which evaluating does not depend; docs/teachers.md lists the teachers.
"""

LICENCES = {
    "embedded": "Apache-2.0 (trained by this project, like its code; its encoder is EfficientNet-Lite0, Apache-2.0)",
    **dict.fromkeys(("vit_b", "vit_l", "vit_h", "mobile_sam", "slimsam", "edgetam"), "Apache-2.0"),
    **dict.fromkeys(("sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus", "sam2.1_large"), "Apache-2.0"),
    **dict.fromkeys(("sam_hq_vit_b", "sam_hq_vit_l", "sam_hq_vit_h"), "Apache-2.0"),
    "efficientnet_lite0": "Apache-2.0",
    **dict.fromkeys(("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m"), "Apache-2.0"),
}
UNKNOWN = "licence unknown: yours to say"


def licence_of(name: str) -> str:
    """Of the teacher or the backbone with this name in `weights`; UNKNOWN for a file or folder and for other names."""
    return LICENCES.get(name, UNKNOWN)
