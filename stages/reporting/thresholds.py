"""The page's section on thresholds: their curves, calibration, and the data that its slider needs."""

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from stages.evaluation.config import wish_in_words
from stages.evaluation.palette import colour_of_class
from stages.evaluation.probabilities import STEPS
from stages.reporting.charts import curve_chart
from stages.reporting.score_tables import UNDEFINED

CHARTS = {
    "recall_defects": "Recall of defects",
    "precision_defects": "Precision of defects",
    "false_positives_per_image": "False positives per image",
    "recall_px": "Recall of pixels",
    "precision_px": "Precision of pixels",
}


def thresholds_of(point: Mapping, curves: Mapping[str, dict | None], names: Sequence[str]) -> dict[str, object] | None:
    """`point`: `operating_point` of a run's metrics; `curves`: its curves.json. None where nothing was scored."""
    split = next((split for split in ("test", "val") if curves.get(split)), None)
    if split is None:
        return None
    own = curves[split]
    charts = [(title, _chart(title, own, key, names)) for key, title in CHARTS.items()]
    calibrated = [
        (number, sorted(_pairs(one["confidence"], one["correct"]))) for number, one in enumerate(own["calibration"])
    ]
    charts.append(("Calibration", curve_chart("Calibration: share of correct pixels", calibrated, "mean confidence")))
    error = point[f"{split}_expected_calibration_error"]
    return {
        "split": split,
        "images": own["images"],
        "charts": charts,
        "wish": wish_in_words(point["wish"]),
        "chosen_on": point["chosen_on"],
        "temperature": ", ".join(f"{seed['temperature']:.3g}" for seed in point["by_seed"]),
        "error": UNDEFINED if error["after"] is None else f"{error['before']:.3f} → {error['after']:.3f}",
        "slider": json.dumps(
            {
                "names": list(names),
                "colours": [colour_of_class(class_id) for class_id in range(len(names))],
                "steps": STEPS,
                "thresholds": own["thresholds"],
                "chosen": point["by_seed"][0]["thresholds"],
                "classes": [{key: own["classes"][name][key] for key in list(CHARTS)[:3]} for name in names],
            }
        ),
    }


def _chart(title: str, own: Mapping, key: str, names: Sequence[str]) -> Markup:
    lines = [(number, _pairs(own["thresholds"], own["classes"][name][key])) for number, name in enumerate(names)]
    return curve_chart(title, lines, "threshold")


def _pairs(across: Sequence[float | None], up: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(across, up, strict=True) if x is not None and y is not None]
