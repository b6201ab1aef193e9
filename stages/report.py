"""All runs side by side, as one HTML page: tables, intervals, charts, defects, and pictures of the worst cases.

    python -m stages.report --tables data/tables --masks data/masks --truth data/truth --predictions data/predictions
        --teacher metrics/rasterize.json --curves data/curves --out data/report --summary metrics/summary.json
        --plots metrics/plots

The runs are those of section `rows` of params.yaml; the others are compared with the first, whose predictions (of the
first seed) are shown.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder, remove_others, write_json
from stages.common.options import Masks, ParamsFile, Tables, Truth
from stages.common.params import Section, load_params, read_sealed
from stages.common.progress import progress
from stages.data.tables import Dataset, read_dataset
from stages.evaluation.config import Rows, Seeds
from stages.evaluation.defect_metrics import summarise_defects
from stages.evaluation.predictions import scored_by_seed
from stages.evaluation.summary import Difference, adjusted_for_all, paired_differences
from stages.reporting.aligned_maps import aligned_maps
from stages.reporting.cases import cases, choose
from stages.reporting.config import ReportParams
from stages.reporting.curves import read_curves
from stages.reporting.defect_findings import corrections_of, gather
from stages.reporting.layers import picture
from stages.reporting.near_pairs import near_pairs
from stages.reporting.overview import summary, write_plots
from stages.reporting.page import COMPARED, Findings, render


class Params(Section):
    report: ReportParams
    rows: Rows
    runs: dict[str, dict[str, Any]]
    seeds: Seeds


def main(
    tables: Tables,
    masks: Masks,
    truth: Truth,
    predictions: Annotated[Path, typer.Option(help="Predictions and scores, a folder per run.")],
    teacher: Annotated[Path, typer.Option(help="JSON file of the pseudo-masks' quality.")],
    curves: Annotated[Path, typer.Option(help="Folder of the trainings' curves.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    summary_out: Annotated[Path, typer.Option("--summary", help="JSON file for a few metrics per run.")],
    plots: Annotated[Path, typer.Option(help="Folder for the curves of all runs, a CSV file per quantity.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the report."""
    values, source = load_params(Params, params), read_dataset(tables / "dataset.json")
    if os.environ.get("DVC_STAGE"):  # folders of runs no longer in `rows` must not get into dvc.lock
        for folder in (predictions, curves):
            remove_others(folder, values.rows)
    by_run = {name: read_sealed(predictions / name / "scores.json", "evaluate this run again") for name in values.rows}
    reference, bootstrap = values.rows[0], values.report.bootstrap
    shown = predictions / reference / str(values.seeds[0])
    pictures = [
        picture(case, split, source.names)
        for split, chosen in choose(shown, len(source.names) + 1, values.report.images).items()
        for case in progress(
            cases(source, split, chosen, shown, tables, masks, truth), f"draw {split}", "images", total=len(chosen)
        )
    ]
    differences = compare(predictions, source, values)
    methods = {name: run.get("supervision", {}).get("method") for name, run in values.runs.items()}
    images = aligned_maps("test", values.rows, values.seeds, predictions, masks, truth)
    defects = gather(progress(images, "defects of test", "images"), values.rows, len(values.seeds))
    findings = Findings(
        names=source.names,
        reference=reference,
        oracles=[name for name in values.rows if methods.get(name) == "truth"],
        metrics=by_run,
        differences=differences,
        samples=bootstrap.samples,
        teacher=read_sealed(teacher, "run the appraise stage again"),
        thresholds=read_sealed(predictions / reference / "curves.json", "evaluate this run again"),
        curves=[read_curves(curves, run, seed) for run in values.rows for seed in values.seeds],
        defects=defects,
        teacher_defects=defects and summarise_defects(defects.teacher_counts, bootstrap),
        corrections=defects and corrections_of(defects, bootstrap),
        pictures=pictures,
        near=near_pairs(source, tables),
    )
    with new_folder(out) as part:
        (part / "index.html").write_text(render(findings), encoding="utf-8")
    write_json(summary_out, summary(by_run))
    write_plots(plots, findings.curves)


def compare(predictions: Path, source: Dataset, values: Params) -> dict[str, dict[str, Difference]]:
    """Each further run against the first on the scored test images: run -> score -> its difference.

    Raises UserError where two runs were scored on different images.
    """
    classes, (first, *others) = len(source.names) + 1, values.rows
    scored_ids, baseline = scored_by_seed(predictions / first, values.seeds, "test", classes)
    differences: dict[str, dict[str, Difference]] = {}
    for name in others if scored_ids else []:
        own_ids, counts = scored_by_seed(predictions / name, values.seeds, "test", classes)
        if own_ids != scored_ids:
            raise UserError(f"{predictions / name}: scored on other images than {first}; evaluate both on one data set")
        differences[name] = paired_differences(counts, baseline, source.names, COMPARED, values.report.bootstrap)
    return adjusted_for_all(differences)


if __name__ == "__main__":
    run(main)
