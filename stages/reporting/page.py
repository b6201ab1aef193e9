"""The report's text: what was measured, against what, how sure it is, and what could not be measured."""

from collections.abc import Iterator, Mapping, Sequence

from stages.reporting import published
from stages.reporting.table import class_table, difference_table, headline_table, tree_table

COMPARED = ("iou_bin", "miou_anom")
"""Figures of the paired comparison between runs."""

READING = """\
Confusion counts are summed over the whole split before anything is divided, {resolution}. {seeds} mIoU is the mean over
background and the defect classes, mIoU_anom over the defect classes; a class that the truth never shows is left out.
IoU_bin, F1_anom (= 2 IoU_bin / (1 + IoU_bin)), recall and precision ask only whether a pixel is a defect of any class.
A dash is a figure that is undefined, not zero."""

ONE_SEED = """\
Every run was trained once: brackets hold the 95 % bootstrap interval over images, and say nothing about what another
seed would have given."""
SEEDS = """\
Every figure is the mean over {count} trainings with different seeds; brackets hold the 95 % bootstrap interval over
images and seeds."""

RESOLUTION = {
    "native": "at each photograph's own resolution",
    "stretched_518": "on photographs and truth stretched to 518 × 518, as published",
}

PAIRED = """\
Each run minus `{reference}` on the same test images and seeds, with the 95 % interval of the paired bootstrap (both
runs share the resamples). An interval without 0 in it is evidence of a difference; the intervals are not corrected for
the number of comparisons ({comparisons} here)."""

TEST = "Test: against pixel truth"
VAL = "Val: against the noisy teacher"
VAL_NOTE = """\
Agreement with the pseudo-masks that training is steered by. A student that corrects its teacher loses here, so no
conclusion is drawn from this table."""

TEACHER = """\
What the student is taught by. `per_box` compares each box's mask with the truth inside that box, `pseudo_masks` the
whole label maps, `box_filling` what filling every box would have scored. What nobody boxed, both miss."""


def index(
    names: Sequence[str],
    metrics: Mapping[str, dict],
    reference: str,
    differences: Mapping[str, Mapping[str, tuple[float | None, float | None, float | None]]],
    teacher: Mapping[str, object],
    pictures: Sequence[tuple[str, str]],
) -> str:
    """Markdown of the report. `metrics`: run -> its JSON; `pictures`: (file name in overlays/, image id)."""
    test = {run: values["test"] for run, values in metrics.items()}
    val = {run: values["val"] for run, values in metrics.items()}
    seeds = max(len(values["seeds"]) for values in metrics.values())
    resolutions = sorted({values["resolution"] for values in metrics.values()})
    parts = [
        "# Report",
        READING.format(
            resolution=" / ".join(RESOLUTION[name] for name in resolutions),
            seeds=ONE_SEED if seeds == 1 else SEEDS.format(count=seeds),
        ),
        "![binary IoU of every run, with intervals](scores.png)",
        *_unscored(metrics),
        f"## {TEST}",
        _count(test),
        headline_table(test, published.TEST_HEADER, published.TEST),
        "What we found in the published figures:",
        "\n".join(f"- {error}" for error in published.ERRORS),
        *(["By class:", class_table(test, names)] if any(test.values()) else []),
    ]
    if differences:
        comparisons = len(differences) * len(COMPARED)
        parts += [
            f"## Differences from `{reference}`",
            PAIRED.format(reference=reference, comparisons=comparisons),
            difference_table(differences, COMPARED),
        ]
    parts += [
        f"## {VAL}",
        VAL_NOTE,
        _count(val),
        headline_table(val, published.VAL_HEADER, published.VAL),
        *(["By class:", class_table(val, names)] if any(val.values()) else []),
    ]
    parts += ["## The teacher's pseudo-masks against truth", TEACHER, tree_table(teacher)]
    parts += ["## Pictures", _gallery(pictures, reference)]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(metrics: Mapping[str, dict]) -> dict[str, dict[str, float | None]]:
    """A handful of figures a run, few enough for the columns of `dvc exp show`."""
    wanted = {"val": ["miou_anom"], "test": ["miou_anom", "iou_bin", "recall_bin", "precision_bin"]}
    return {
        run: {
            f"{split}_{key}": values[split][key] if values[split] else None
            for split, keys in wanted.items()
            for key in keys
        }
        for run, values in metrics.items()
    }


def _unscored(metrics: Mapping[str, dict]) -> list[str]:
    """What could not be scored, and why, in one list; each sentence once, not once a run."""
    sentences = dict.fromkeys(
        f"- {split}: {sentence}"
        for values in metrics.values()
        for split in ("test", "val")
        for sentence in _gaps(values[split], values.get(f"{split}_not_scored"))
    )
    return ["## Not scored", "\n".join(sentences)] if sentences else []


def _gaps(scores: dict | None, reason: str | None) -> Iterator[str]:
    if scores is None:
        yield f"{reason}. Its rows below are empty on purpose."
        return
    if missing := scores["images_without_truth"]:
        yield f"{missing} images have no truth; they are predicted, but count for nothing."
    if scores["recall_bin"] is None:
        yield "the reference shows no defect pixel, so most figures are undefined."


def _count(runs: Mapping[str, dict | None]) -> str:
    counts = sorted({scores["images"] for scores in runs.values() if scores})
    return f"{' / '.join(map(str, counts))} images scored." if counts else ""


def _gallery(pictures: Sequence[tuple[str, str]], reference: str) -> str:
    if not pictures:
        return "None were asked for."
    lines = [
        f"Test against truth where there is any, val against the teacher; by error of `{reference}`, the worst first: "
        "one half are the very worst, the other half a spread over the rest.",
        *(
            f"### {file.removesuffix('.png')}: {image_id}\n\n![{image_id}](overlays/{file})"
            for file, image_id in pictures
        ),
    ]
    return "\n\n".join(lines)
