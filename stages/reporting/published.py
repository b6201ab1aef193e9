"""Scores published by the Boxes2Pixels paper; docs/paper.md says how to read them.

Test: the authors' manual masks of DTU blade images (not released); val: SAM's masks; both at a stretched 518 x 518.
Keys as in metrics/scores.py. The two precisions are implied by the published recall and binary IoU.
"""

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
