"""Charts as inline SVG: colours and fonts come from page.css, which follows the reader's light or dark theme."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

from stages.evaluation.defect_metrics import IOUS
from stages.evaluation.palette import hex_of_label
from stages.reporting.defect_findings import Tally

SERIES = 8
"""Colours of page.css, .s0 to .s7; further series repeat them with other dashes."""
WIDTH = 420
"""Width of every chart in SVG units; on a phone one unit is nearly one pixel."""
DOTS = 4000
"""Largest number of defects drawn in the scatter chart, which bounds the size of the page."""


def scores_chart(metrics: Mapping[str, Mapping[str, dict | None]]) -> Markup:
    """`metrics`: run -> split -> scores or None. Binary IoU of each with its interval, and a tick per seed."""
    left, right, row_px, top = 8, WIDTH - 52, 62, 24
    height = top + row_px * len(metrics)

    def at(value: float) -> float:
        return left + value * (right - left)

    parts = [
        _line("grid", at(tick), top - 6, at(tick), height - 8) + _text("tick mid", at(tick), 12, f"{tick:g}")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    for row, (run, splits) in enumerate(metrics.items()):
        y = top + row * row_px
        parts.append(_text("strong", left, y + 12, _short(run)))
        for split, below in (("test", 26), ("val", 44)):
            scores = splits[split]
            point = scores and scores["iou_bin"]
            if point is None:
                parts.append(_text(f"{split} end", WIDTH, y + below + 4, "not scored"))
                continue
            low, high = scores["iou_bin_low"], scores["iou_bin_high"]
            if low is not None and high is not None:
                parts.append(_line(f"{split} span", at(low), y + below, at(high), y + below))
            seeds = scores.get("iou_bin_by_seed", [])
            parts += [
                _line(f"{split} seed", at(value), y + below - 5, at(value), y + below + 5)
                for value in seeds
                if len(seeds) > 1 and value is not None
            ]
            if split == "test":
                parts.append(Markup('<circle class="test" cx="{}" cy="{}" r="5"/>').format(_n(at(point)), y + below))
            else:
                where = _n(at(point) - 4.5), _n(y + below - 4.5)
                parts.append(Markup('<rect class="val" x="{}" y="{}" width="9" height="9"/>').format(*where))
            parts.append(_text(f"{split} end", WIDTH, y + below + 4, f"{point:.3f}"))
    return _svg(height, "Binary IoU of every run with its interval; the values are in the tables.", parts)


def curve_chart(
    title: str, curves: Sequence[tuple[int, Sequence[tuple[float, float]]]], share: str | None = None
) -> Markup:
    """`curves`: (number of the run, points (epoch, value)); those of a run share its colour.

    `share`: name of the x axis where x is not an epoch but a value from 0 to 1.
    """
    left, right, top, bottom = 50, WIDTH - 10, 10, 200
    points = [point for _, own in curves for point in own]
    if not points:
        return Markup('<p class="quiet">No values were recorded.</p>')
    ticks = _ticks(max(value for _, value in points))
    first, last = (0, 1) if share else (min(epoch for epoch, _ in points), max(epoch for epoch, _ in points))

    def at(epoch: float, value: float) -> tuple[str, str]:
        across = 0.5 if last == first else (epoch - first) / (last - first)
        return _n(left + across * (right - left)), _n(bottom - value / ticks[-1] * (bottom - top))

    parts = []
    for tick in ticks:
        y = float(at(first, tick)[1])
        parts += [_line("grid", left, y, right, y), _text("tick end", left - 6, y + 4, f"{tick:g}")]
    for epoch in sorted({first, 0.5 if share else (first + last) // 2, last}):
        parts.append(_text("tick mid", float(at(epoch, 0)[0]), bottom + 18, f"{epoch:g}"))
    parts.append(_text("tick end", right, bottom + 36, share or "epoch"))
    for run, own in curves:
        path = "M" + "L".join(" ".join(at(*point)) for point in own)
        parts.append(Markup('<path class="{}" d="{}"/>').format(curve_class(run), path) if own else Markup())
        for point in own if len(own) <= 12 else []:
            parts.append(Markup('<circle class="s{}" cx="{}" cy="{}" r="3"/>').format(run % SERIES, *at(*point)))
    return _svg(bottom + 42, title, parts)


def curve_class(run: int) -> str:
    """Colour and dashes of the curves of run number `run`."""
    return f"s{run % SERIES} curve" + ("", " dash-a", " dash-b")[run // SERIES % 3]


def recall_chart(title: str, groups: Sequence[tuple[str, Mapping[str, Tally]]]) -> Markup:
    """`groups`: (title, who -> tally). A bar each: detected, partially detected and undetected defects."""
    left, bar_px, y, parts = 108, 16, 0.0, []
    for group, tallies in groups:
        total = next(iter(tallies.values())).total
        parts += [_text("strong", 0, y + 15, _short(group)), _text("tick end", WIDTH, y + 15, f"n = {total}")]
        y += 22
        for who, counts in tallies.items():
            parts.append(_text("tick end", left - 8, y + 12, _short(who, 13)))
            x = float(left)
            for name, count in zip(counts._fields, counts, strict=True):
                width = (WIDTH - left) * count / max(1, counts.total)
                shape = '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>'
                parts.append(Markup(shape).format(name, _n(x), _n(y), _n(width), bar_px) if count else Markup())
                if width > 26:
                    parts.append(_text(f"on-{name} mid", x + width / 2, y + 12, f"{count / counts.total:.0%}"))
                x += width
            y += bar_px + 4
        y += 8
    return _svg(round(y), title, parts)


def scatter_chart(title: str, areas_px: np.ndarray, ious: np.ndarray, class_ids: np.ndarray) -> Markup:
    """A dot per defect, (D,) each: its size in pixels, on a logarithmic axis, and the IoU with its match."""
    left, right, top, bottom = 50, WIDTH - 24, 10, 220
    low, high = np.floor(np.log10(areas_px.min())), np.ceil(np.log10(areas_px.max() + 1))
    parts = []
    for iou in (0, *IOUS, 1):
        y = bottom - iou * (bottom - top)
        parts += [_line("grid", left, y, right, y), _text("tick end", left - 6, y + 4, f"{iou:g}")]
    for power in range(int(low), int(high) + 1):
        x = left + (power - low) / (high - low) * (right - left)
        parts += [_line("grid", x, top, x, bottom), _text("tick mid", x, bottom + 18, f"{10**power:,}")]
    parts.append(_text("tick end", right, bottom + 36, "pixels of the defect"))
    drawn = np.unique(np.linspace(0, len(areas_px) - 1, min(DOTS, len(areas_px))).round().astype(int))
    x = left + (np.log10(areas_px[drawn]) - low) / (high - low) * (right - left)
    y = bottom - ious[drawn] * (bottom - top)
    for number in np.unique(class_ids[drawn]):
        own = class_ids[drawn] == number
        # Lines of no length with round ends: dots in a tenth of the bytes that circles take.
        path = "".join(f"M{_n(a)} {_n(b)}h0" for a, b in zip(x[own], y[own], strict=True))
        parts.append(Markup('<path class="dots" stroke="{}" d="{}"/>').format(hex_of_label(number + 1), path))
    return _svg(bottom + 42, title, parts)


def _svg(height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, _n(height), title, Markup("").join(parts)
    )


def _line(class_: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    shape = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    return shape.format(class_, *(_n(value) for value in (x1, y1, x2, y2)))


def _text(class_: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(class_, _n(x), _n(y), escape(text))


def _ticks(largest: float) -> list[float]:
    """From 0 in three to six round steps to `largest` or just above it; values below 1e-300 count as 0."""
    if largest < 1e-300:
        return [0.0, 1.0]
    power = 10.0 ** np.floor(np.log10(largest))
    step = next(step for step in (0.2, 0.25, 0.5, 1, 2) if largest / (step * power) <= 5) * power
    return [float(f"{index * step:.6g}") for index in range(int(np.ceil(largest / step - 1e-9)) + 1)]


def _short(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _n(value: float) -> str:
    """A coordinate to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
