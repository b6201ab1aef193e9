"""All runs side by side, as one HTML page: tables, intervals, charts, defects, and pictures of the worst cases.

    python -m stages.report

Which runs there are is read from section `rows` of params.yaml; the first of them is the one that the others are
compared with, and whose predictions (of the first seed) are drawn.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder, write_json
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.data.tables import Dataset, read_dataset
from stages.evaluation.config import Rows, Seeds
from stages.evaluation.defect_metrics import summarise_defects
from stages.evaluation.predictions import image_ids, scored, scored_by_seed
from stages.evaluation.summary import Difference, adjusted_for_all, paired_differences
from stages.reporting.cases import shares, spread, worst_first
from stages.reporting.config import ReportParams
from stages.reporting.curves import read_curves
from stages.reporting.defects import corrections_of, gather
from stages.reporting.gallery import cases
from stages.reporting.overlays import draw
from stages.reporting.page import COMPARED, Findings, render, summary
from stages.reporting.pictures import Picture, picture
from stages.reporting.scenes import scenes


class Params(Section):
    report: ReportParams
    rows: Rows
    seeds: Seeds


def main(
    tables: Annotated[Path, typer.Option(help="Tables of the data set.")] = Path("data/tables"),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks.")] = Path("data/masks"),
    truth: Annotated[Path, typer.Option(help="Pixel truth.")] = Path("data/truth"),
    predictions: Annotated[Path, typer.Option(help="Predictions and scores, a folder a run.")] = Path(
        "data/predictions"
    ),
    teacher: Annotated[Path, typer.Option(help="Scores of the pseudo-masks.")] = Path("metrics/rasterize.json"),
    curves: Annotated[Path, typer.Option(help="Curves of the trainings.")] = Path("metrics/curves"),
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("data/report"),
    summary_out: Annotated[Path, typer.Option("--summary", help="Few figures a run.")] = Path("metrics/summary.json"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    """Write the report."""
    values, source = load_params(Params, params), read_dataset(tables / "dataset.json")
    by_run = {name: read_json(predictions / name / "scores.json") for name in values.rows}
    reference = next(iter(by_run))
    drawn = predictions / reference / str(values.seeds[0])
    with new_folder(out) as part:
        pictures: list[Picture] = []
        (part / "overlays").mkdir()
        for split, chosen in choose(drawn, source, values.report.overlays).items():
            to_draw = cases(source, split, chosen, drawn, tables, masks, truth)
            for number, case in enumerate(progress(to_draw, f"draw {split}", "images", total=len(chosen)), start=1):
                draw(case, source.names, reference).save(part / "overlays" / f"{split}-{number:02d}.png")
                pictures.append(picture(case, split, source.names))
        differences = compare(predictions, source, values)
        shown = progress(
            scenes("test", values.rows, values.seeds, predictions, masks, truth), "defects of test", "images"
        )
        defects = gather(shown, values.rows, len(values.seeds))
        findings = Findings(
            names=source.names,
            reference=reference,
            metrics=by_run,
            differences=differences,
            samples=values.report.bootstrap.samples,
            teacher=read_json(teacher),
            curves=[read_curves(curves, run, seed) for run in values.rows for seed in values.seeds],
            defects=defects,
            teacher_defects=defects and summarise_defects(defects.teacher_counts, values.report.bootstrap),
            corrections=defects and corrections_of(defects, values.report.bootstrap),
            pictures=pictures,
        )
        (part / "index.html").write_text(render(findings), encoding="utf-8")
    write_json(summary_out, summary(by_run))


def choose(drawn: Path, source: Dataset, total: int) -> dict[str, list[str]]:
    """Image ids to draw per split: scored ones worst first; where none is scored, a spread over all."""
    everything = {split: image_ids(drawn / f"{split}.parquet") for split in ("test", "val")}
    chosen = {}
    for split, count in shares({split: len(ids) for split, ids in everything.items()}, total).items():
        scored_ids, counts = scored(drawn / f"{split}.parquet", len(source.names) + 1)
        chosen[split] = spread(worst_first(scored_ids, counts) if scored_ids else everything[split], count)
    return chosen


def compare(predictions: Path, source: Dataset, values: Params) -> dict[str, dict[str, Difference]]:
    """Each further run against the first on the scored test images: run -> figure -> its difference."""
    classes, (first, *others) = len(source.names) + 1, values.rows
    scored_ids, baseline = scored_by_seed(predictions / first, values.seeds, "test", classes)
    differences: dict[str, dict[str, Difference]] = {}
    for name in others if scored_ids else []:
        own_ids, counts = scored_by_seed(predictions / name, values.seeds, "test", classes)
        if own_ids != scored_ids:
            raise UserError(f"{predictions / name}: scored on other images than {first}; evaluate both on one data set")
        differences[name] = paired_differences(counts, baseline, source.names, COMPARED, values.report.bootstrap)
    return adjusted_for_all(differences)


def read_json(path: Path) -> dict:
    """A metrics file. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        raise UserError(f"{path}: no readable scores; appraise, and evaluate every run of params.yaml, first") from None


if __name__ == "__main__":
    run(main)
