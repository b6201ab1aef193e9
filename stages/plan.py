"""Check params.yaml, all of it, and resolve it into one configuration per run, holding only what that run uses.

    python -m stages.plan

Training depends on its own plan, not on params.yaml: changing `selfcorr.tau` rewrites the plans of the runs that
self-correct, and only those retrain. Every other stage waits for the file that says that params.yaml has been checked.
It never changes, so that waiting reruns nothing; but a mistake in any section ends `dvc repro` here, before any work.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stages.checkpoints.config import WeightsParams
from stages.common.errors import UserError, run
from stages.common.files import new_file, new_folder
from stages.common.params import Section, load_params, parse
from stages.demo.config import SynthesizeParams
from stages.evaluation.config import EvaluateParams, Rows, Seeds
from stages.ingestion.config import DataParams, IngestParams
from stages.methods.config import PARAMS_OF, LossParams, SelfcorrParams
from stages.reporting.config import ReportParams
from stages.student.config import StudentParams, ViewParams
from stages.student.kinds import NetworkParams
from stages.teacher.config import RasterizeParams
from stages.training.config import LoadingParams, Plan, TrainParams

CHECKED = "every section of params.yaml holds what is allowed\n"


class SelfcorrSection(SelfcorrParams):
    """Section `selfcorr` of params.yaml: the switch, and what only a run that is switched on depends on."""

    enabled: bool


class SupervisionSection(Section):
    """Section `supervision` of params.yaml; a run of another method brings that one's numbers."""

    method: str


class Shared(Section):
    """The sections that a run can override."""

    network: NetworkParams
    student: StudentParams
    view: ViewParams
    loss: LossParams
    selfcorr: SelfcorrSection
    supervision: dict[str, Any]
    train: TrainParams


class Params(Shared):
    """All of params.yaml."""

    supervision: SupervisionSection
    loading: LoadingParams
    data: DataParams
    synthesize: SynthesizeParams
    weights: WeightsParams
    ingest: IngestParams
    rasterize: RasterizeParams
    evaluate: EvaluateParams
    report: ReportParams
    seeds: Seeds
    rows: Rows
    runs: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], dict[str, dict[str, Any]]] = Field(min_length=1)


def resolve(params: Params, run_name: str) -> Plan:
    """The shared sections with the overrides of `run_name` on top, less what that run does not use."""
    shared = params.model_dump(include=set(Shared.model_fields))
    where = f"params.yaml: runs.{run_name}"
    if unknown := sorted(params.runs[run_name].keys() - shared.keys()):
        raise UserError(f"{where}: {unknown[0]} is not a section that a run can override: {', '.join(shared)}")
    merged = {key: {**values, **params.runs[run_name].get(key, {})} for key, values in shared.items()}
    checked = parse(Shared, merged, where)
    values = checked.model_dump(include={"view", "train"}) | _network(checked, where)
    values |= {"class_weights": checked.loss.class_weights, "supervision": _supervision(checked, where)}
    return parse(Plan, values, where)


def _supervision(checked: Shared, where: str) -> dict[str, Any]:
    """What the run's method is told: its own parameters, and of `loss` and `selfcorr` what it has a use for."""
    method = checked.supervision.get("method")
    if not isinstance(method, str) or method not in PARAMS_OF:
        raise UserError(f"{where}: supervision.method = {method!r}: allowed are {', '.join(PARAMS_OF)}")
    loss = checked.loss.model_dump(exclude={"class_weights"})
    if checked.network.architecture != "student" or not checked.student.binary:
        loss |= {"binary": None, "beta": None}
    elif None in (loss["binary"], loss["beta"]):
        raise UserError(f"{where}: loss.binary and loss.beta must be numbers while student.binary is true")
    selfcorr = checked.selfcorr.model_dump(exclude={"enabled"}) if checked.selfcorr.enabled else None
    of_sections = {**loss, "selfcorr": selfcorr}
    used = {key: value for key, value in of_sections.items() if key in PARAMS_OF[method].model_fields}
    return used | checked.supervision


def _network(checked: Shared, where: str) -> dict[str, dict | None]:
    """The plan's `student` and `network`. Raises UserError for what segmentation-models-pytorch cannot do."""
    network = checked.network
    if network.architecture == "student":
        return {"student": checked.student.model_dump(), "network": None}
    if network.architecture == "deeplabv3":
        if network.encoder.startswith("mit_"):
            raise UserError(f"{where}: network.encoder = {network.encoder}: deeplabv3 needs one of convolutions")
        if checked.train.batch_size == 1:
            raise UserError(f"{where}: train.batch_size = 1: deeplabv3 normalises over the batch and needs 2 or more")
    return {"student": None, "network": network.model_dump()}


def main(
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
    out: Annotated[Path, typer.Option(help="Folder for one JSON file a run.")] = Path("data/plan"),
    checked: Annotated[Path, typer.Option(help="File that appears once all is right.")] = Path("data/checked.txt"),
) -> None:
    """Check all parameters and write one resolved configuration per run."""
    values = load_params(Params, params, whole=True)
    plans = {name: resolve(values, name) for name in sorted(values.runs)}
    if unknown := [name for name in values.rows if name not in plans]:
        raise UserError(f"{params}: rows: {unknown[0]} is not one of runs: {', '.join(values.runs)}")
    with new_folder(out) as part:
        for name, plan in plans.items():
            (part / f"{name}.json").write_text(plan.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with new_file(checked) as part:
        part.write_text(CHECKED, encoding="utf-8")


if __name__ == "__main__":
    run(main)
