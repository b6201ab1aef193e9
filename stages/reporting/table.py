"""Scores as Markdown tables."""

from collections.abc import Mapping, Sequence

from stages.scoring.metrics import HEADLINES, class_keys

TITLES = {
    "miou": "mIoU",
    "miou_anom": "mIoU_anom",
    "f1_anom": "F1_anom",
    "iou_bin": "IoU_bin",
    "recall_bin": "recall",
    "precision_bin": "precision",
}
UNDEFINED = "–"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the rest are figures."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def headline_table(runs: Mapping[str, dict | None], below: str, rows_below: Mapping[str, Mapping[str, str]]) -> str:
    """A row a run with its six figures and their intervals; then a line `below` and published rows, in italics."""
    rows = [
        [f"`{run}`", *(figure(scores, key) if scores else "not scored" for key in HEADLINES)]
        for run, scores in runs.items()
    ]
    rows.append([f"*{below}*", *[""] * len(HEADLINES)])
    rows += [
        [f"*{name}*", *(f"*{row[key]}*" if key in row else UNDEFINED for key in HEADLINES)]
        for name, row in rows_below.items()
    ]
    return markdown(["run", *(TITLES[key] for key in HEADLINES)], rows)


def class_table(runs: Mapping[str, dict | None], names: Sequence[str]) -> str:
    """A row a run with the IoU of each defect class."""
    rows = [
        [f"`{run}`", *(figure(scores, key) if scores else "not scored" for key in class_keys(names))]
        for run, scores in runs.items()
    ]
    return markdown(["run", *(f"IoU {name}" for name in names)], rows)


def difference_table(
    differences: Mapping[str, Mapping[str, tuple[float | None, float | None, float | None]]], keys: Sequence[str]
) -> str:
    """A row a run with (difference, low, high) per figure."""
    rows = [[f"`{run}`", *(interval(*values[key], sign="+") for key in keys)] for run, values in differences.items()]
    return markdown(["run", *(TITLES[key] for key in keys)], rows)


def tree_table(splits: Mapping[str, object]) -> str:
    """Nested figures, one column a split and one row a dotted key; `_low` and `_high` become intervals."""
    flat = {split: _flatten(values) for split, values in splits.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    ends = {key for key in keys if key.endswith(("_low", "_high")) and key.rpartition("_")[0] in keys}
    rows = [[key, *(figure(values, key) for values in flat.values())] for key in keys if key not in ends]
    return markdown(["", *flat], rows)


def figure(scores: Mapping[str, object], key: str) -> str:
    """`0.512 [0.447, 0.570]`, the figure alone where it has no interval, a dash where it is undefined."""
    return interval(scores.get(key), scores.get(f"{key}_low"), scores.get(f"{key}_high"))


def interval(point: object, low: object, high: object, sign: str = "") -> str:
    """As `figure`; `sign="+"` for differences."""
    if not isinstance(point, float):
        return UNDEFINED if point is None else str(point)
    text = f"{point:{sign}.3f}"
    return text if low is None or high is None else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _flatten(values: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
