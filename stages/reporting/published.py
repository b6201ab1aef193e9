"""Figures of the Boxes2Pixels paper, to stand beside ours, and what is wrong with them.

Test was measured on the authors' manual masks of DTU blade images (not released), val on SAM's masks, both at a
stretched 518 x 518.
"""

TEST_HEADER = "published; DTU manual test masks, stretched 518 × 518: other data, not comparable with the rows above"
VAL_HEADER = "published; DTU val, SAM's masks, stretched 518 × 518: other data, not comparable with the rows above"

# Keys as in scoring/metrics.py. The two precisions are implied by the published recall and binary IoU.
TEST: dict[str, dict[str, str]] = {
    "U-Net": {"miou": "0.7057", "miou_anom": "0.5629", "f1_anom": "0.7036", "iou_bin": "0.5427"},
    "DeepLabV3-B2": {"miou": "0.6867", "miou_anom": "0.5342", "f1_anom": "0.6955", "iou_bin": "0.5331"},
    "SegFormer-B2": {"miou": "0.7231", "miou_anom": "0.5881", "f1_anom": "0.6939", "iou_bin": "0.5312"},
    "Boxes2Pixels": {
        "miou": "0.7661",
        "miou_anom": "0.6523",
        "f1_anom": "0.7674",
        "iou_bin": "0.6226",
        "recall_bin": "0.8051",
        "precision_bin": "0.733 (implied)",
    },
    "without self-correction": {
        "miou_anom": "0.5826",
        "f1_anom": "0.6889",
        "iou_bin": "0.5255",
        "recall_bin": "0.6195",
        "precision_bin": "0.776 (implied)",
    },
}

VAL: dict[str, dict[str, str]] = {
    "Boxes2Pixels": {"miou_anom": "0.5093"},
    "no detail": {"miou_anom": "0.5013"},
    "no binary": {"miou_anom": "0.3851"},
    "without self-correction": {"miou_anom": "0.5049"},
}

ERRORS = (
    "Their F1_anom is binary, not a mean over classes: every row satisfies F1 = 2 IoU_bin / (1 + IoU_bin), so it "
    "adds nothing to IoU_bin. Ours is computed the same way.",
    "The published gain of 6.97 (mIoU_anom) and 9.71 (IoU_bin) points over “the strongest baseline” is the gain over "
    "their own ablation without self-correction; over the best baselines it is 6.42 (SegFormer) and 7.99 (U-Net).",
    "Precision is not published. Recall and IoU_bin imply that self-correction lowers it from 0.776 to 0.733.",
    "Their self-correction ablation changes two things at once: switched on, the weighted loss is averaged over "
    "pixels; switched off, it is divided by the summed weights (0.58 times the scale at 5 % foreground).",
    "Their run without the detail branch works at 296 × 296 features, the full one at 130 × 130.",
    "In the authors' release the baselines are self-corrected too, and a class absent from the truth scores 0 "
    "(here: undefined, left out of the mean).",
)
