"""The model card of a run: what was trained on what, its scores, and what was not tested."""

from collections.abc import Mapping
from pathlib import Path

from stages.data.tables import BOXES, IMAGES, SPLITS, Dataset, count_rows
from stages.evaluation.config import WeightsNames, wish_in_words
from stages.evaluation.defect_metrics import OF_A_CLASS
from stages.student.config import NetworkConfig

SHOWN = ("iou_bin", "miou_anom", "precision_bin", "recall_bin")
SHOWN_DEFECTS = ("recall_defects_iou10", "recall_defects_iou50", "false_positives_per_image_iou10")

LICENCES = {
    "embedded": "Apache-2.0 (trained by this project, like its code; its encoder is EfficientNet-Lite0, Apache-2.0)",
    **dict.fromkeys(("vit_b", "vit_l", "vit_h", "mobile_sam", "slimsam", "edgetam"), "Apache-2.0"),
    **dict.fromkeys(("sam2.1_tiny", "sam2.1_small", "sam2.1_base_plus", "sam2.1_large"), "Apache-2.0"),
    **dict.fromkeys(("sam_hq_vit_b", "sam_hq_vit_l", "sam_hq_vit_h"), "Apache-2.0"),
    "efficientnet_lite0": "Apache-2.0",
    **dict.fromkeys(("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m"), "Apache-2.0"),
}
"""Of the weights that section `weights` can name: declared in stages/checkpoints/, on which evaluating does not depend;
docs/teachers.md lists the teachers."""
UNKNOWN = "licence unknown: yours to say"

Card = dict[str, list]
"""`facts`: pairs of a heading and a text. `not_tested`: sentences. For JSON; the scores are stored beside it."""


def card_of(source: Dataset, tables: Path, weights: WeightsNames, config: NetworkConfig, result: Mapping) -> Card:
    """`tables`: folder of the data set's tables. `result`: what `evaluate` writes into metrics/RUN.json."""
    view, point, teacher = config.view, result["operating_point"], Path(weights.teacher).name
    counts = {split: count_rows(tables / split / "images.parquet", IMAGES) for split in SPLITS}
    boxes = sum(count_rows(tables / split / "boxes.parquet", BOXES) for split in ("train", "val"))
    facts = {
        "task": f"semantic segmentation of defects: {', '.join(config.names)}",
        "network": f"{config.network['architecture']}, input {view.size_px} px, scale {view.scale}",
        "weights it started from": _backbone(config, weights.backbone),
        "data set": f"{source.root.name}: {', '.join(f'{count} {split}' for split, count in counts.items())} images",
        "boxes": f"{boxes} in train and val",
        "learned from": f"masks of train's boxes by the SAM teacher {teacher}, and any that a person drew",
        "weights of the SAM teacher": f"{teacher}: {licence_of(weights.teacher)}",
        "plan (SHA-256)": config.plan_sha256,
        "seeds": ", ".join(map(str, result["seeds"])),
        "operating point": _point(point),
        "temperature of confidences": _temperature(point),
        "calibration error of test": _calibration(point["test_expected_calibration_error"]),
    }
    return {"facts": list(map(list, facts.items())), "not_tested": _limits(config, result)}


def as_markdown(run: str, card: Card, result: Mapping) -> str:
    """The card with the scores of `result`."""
    point, test = result["operating_point"], result["test"]
    lines = [f"# Model card: {run}", "", "| | |", "|---|---|"]
    lines += [f"| {heading} | {cell(text)} |" for heading, text in card["facts"]]
    lines += ["", "## Scores", ""]
    if test is None:
        lines.append(f"Not tested: {result['test_not_scored']}.")
    else:
        columns = [test, *([point["test"]] if point["test"] else [])]
        lines += [
            f"{test['images']} test images with human masks, resolution {result['resolution']}; 95 % intervals.",
            "",
            "| score | argmax |" + (" operating point |" if point["test"] else ""),
            "|---|---|" + ("---|" if point["test"] else ""),
        ]
        for key in SHOWN:
            lines.append(f"| `{key}` | " + " | ".join(_interval(own, key) for own in columns) + " |")
        for key in SHOWN_DEFECTS:
            lines.append(f"| `{key}` | " + " | ".join(_interval(own["defects"], key) for own in columns) + " |")
        by_class = [own["defects"]["by_class"] for own in columns]
        for name in by_class[0]:
            for key in OF_A_CLASS:
                cells = " | ".join(_interval(own[name], key) for own in by_class)
                lines.append(f"| `{key}` of {cell(name)} | {cells} |")
    return "\n".join([*lines, "", "## Not tested", "", *(f"- {cell(sentence)}" for sentence in card["not_tested"]), ""])


def licence_of(name: str) -> str:
    """Of the teacher or the backbone with this name in `weights`; UNKNOWN for a file or folder and for other names."""
    return LICENCES.get(name, UNKNOWN)


def cell(text: str) -> str:
    """`text` in Markdown: names of classes and folders may hold a |, which ends a cell, or HTML."""
    return text.replace("|", r"\|").replace("<", "&lt;")


def _backbone(config: NetworkConfig, name: str) -> str:
    """`name`: `weights.backbone`."""
    if config.backbone is not None:
        return f"{config.backbone.name} ({config.backbone.source}): {licence_of(name)}"
    if config.network.get("encoder_weights") is None:
        return "none: random ones"
    encoder = config.network["encoder"]
    return f"{config.network['encoder_weights']} of {encoder}: {licence_of(encoder)}"


def _point(point: Mapping) -> str:
    if point["wish"] == "argmax":
        return "argmax"
    each = [f"{own['thresholds']}, at least {own['least_area_px']} px" for own in point["by_seed"]]
    found = [
        f"{name} recall {_number(on_val[OF_A_CLASS[0]])} and {_number(on_val[OF_A_CLASS[1]])} false positives per image"
        for own in point["by_seed"]
        for name, on_val in own["on_val"].items()
    ]
    missed = sorted({name for own in point["by_seed"] for name, yes in own["fulfilled"].items() if yes is False})
    unmet = f"; not reached on val by {', '.join(missed)}" if missed else ""
    return (
        f"{wish_in_words(point['wish'])}, chosen on {point['chosen_on']}, each class by itself: thresholds "
        f"{'; '.join(each)}; together, on val: {', '.join(found)}{unmet}"
    )


def _temperature(point: Mapping) -> str:
    values = ", ".join(f"{own['temperature']:.3g}" for own in point["by_seed"])
    if point["val_expected_calibration_error"] is None:
        return f"{values}, not fitted: val has no masks"
    return f"{values}, fitted on {point['chosen_on']}"


def _calibration(error: Mapping | None) -> str:
    if error is None or error["before"] is None:
        return "not known"
    return f"{error['before']:.3f}, with the temperature chosen on val {error['after']:.3f}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(scores: Mapping, key: str) -> str:
    if scores[key] is None:
        return "undefined"
    return f"{scores[key]:.3f} ({scores[f'{key}_low']:.3f} to {scores[f'{key}_high']:.3f})"


def _limits(config: NetworkConfig, result: Mapping) -> list[str]:
    one_seed = ["Other training seeds: the intervals are of images alone."] if len(result["seeds"]) == 1 else []
    return [
        "Surfaces, cameras, lighting and scales other than those of the test images; any other defect than "
        f"{', '.join(config.names)}.",
        *one_seed,
        "Absence of defects: an empty mask is no certificate.",
        "Sizes in millimetres, which are as good as the mask and the scale that `predict` is given.",
    ]
