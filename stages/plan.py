"""Check all of params.yaml, and resolve it into one configuration per run with only the parameters that the run uses.

    python -m stages.plan --params params.yaml --out data/plan --checked data/checked.txt

Training depends on its own plan, not on params.yaml: changing `selfcorr.tau` rewrites the plans of the runs that
self-correct, and only those retrain. A plan also holds the SHA-256 of the files of its method and its network, which
training loads by name. The file `--checked` has constant content, and all other stages depend on it, directly or not:
so a mistake in any section ends `dvc repro` here, before any work, and a valid change reruns nothing by itself. A data
set, manifest or trusted masks that do not exist end it here too; what is written never depends on them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import Field

from stages.checkpoints.config import WeightsParams
from stages.common.errors import UserError, run
from stages.common.files import new_file, new_folder
from stages.common.options import ParamsFile
from stages.common.params import Section, load_params, parse, write_sealed
from stages.data.remote import data_root
from stages.demo.config import SynthesizeParams
from stages.evaluation.config import EvaluateParams, Rows, Seeds
from stages.ingestion.config import DataParams, IngestParams
from stages.ingestion.data_yaml import class_names, find_data_yaml, read_data_yaml
from stages.losses.config import LossParams, SelfcorrSection
from stages.reporting.config import ReportParams
from stages.student import plugins
from stages.student.config import NetworkSection, ViewParams
from stages.teacher.config import RasterizeParams
from stages.training.class_weights import weights_of
from stages.training.config import LoadingParams, Plan, TrainParams

CHECKED = "every section of params.yaml holds what is allowed\n"

DEMO = Path("data/demo")
"""The data root that `synthesize` makes, which comes after this stage."""

CHOICES = {"network": "architecture", "supervision": "method"}
"""Sections whose keys depend on the value of one of them: a run that changes this one replaces the whole section."""


class Shared(Section):
    """The sections that a run can override."""

    network: dict[str, Any]
    view: ViewParams
    loss: LossParams
    selfcorr: SelfcorrSection
    supervision: dict[str, Any]
    train: TrainParams


class Params(Shared):
    """All of params.yaml."""

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
    """The shared sections with the overrides of `run_name` applied, without what that run does not use.

    Raises UserError naming run, key and what is allowed.
    """
    shared = params.model_dump(include=set(Shared.model_fields))
    where, overrides = f"params.yaml: runs.{run_name}", params.runs[run_name]
    if unknown := sorted(overrides.keys() - shared.keys()):
        raise UserError(f"{where}: {unknown[0]} is not a section that a run can override: {', '.join(shared)}")
    merged = {}
    for section, values in shared.items():
        own = overrides.get(section, {})
        choice = CHOICES.get(section)
        replaced = choice in own and own[choice] != values.get(choice)
        merged[section] = own if replaced else {**values, **own}
    checked = parse(Shared, merged, where)
    network_module = plugins.load("networks", checked.network.get("architecture"), f"{where}: network.architecture")
    network = parse(network_module.Params, checked.network, where, "network")
    size, parts = checked.train.batch_size, checked.train.micro_batches
    if size // parts < network.least_batch_size:
        least = f"this network normalises over the batch and needs {network.least_batch_size} or more"
        divided = f" in {parts} micro_batches" if parts > 1 else ""
        raise UserError(f"{where}: train.batch_size = {size}{divided}: {least}")
    method_module = plugins.load("methods", checked.supervision.get("method"), f"{where}: supervision.method")
    values = {
        "network": network.model_dump(),
        "view": checked.view.model_dump(),
        "class_weights": checked.loss.class_weights,
        "supervision": _supervision(checked, network, method_module.Params, where),
        "train": checked.train.model_dump(),
        "code": {
            f"methods/{checked.supervision['method']}": plugins.source_sha256(method_module),
            f"networks/{network.architecture}": plugins.source_sha256(network_module),
        },
    }
    return parse(Plan, values, where)


def _supervision(checked: Shared, network: NetworkSection, model: type[Section], where: str) -> dict[str, Any]:
    """The method's parameters: its own, and those of `loss` and `selfcorr` for which its `Params` has a field."""
    loss = checked.loss.model_dump(exclude={"class_weights"})
    if not network.has_binary_head:
        loss |= {"binary": None, "beta": None}
    elif None in (loss["binary"], loss["beta"]):
        raise UserError(f"{where}: loss.binary and loss.beta must be numbers while the network has a binary head")
    selfcorr = checked.selfcorr.model_dump(exclude={"enabled"}) if checked.selfcorr.enabled else None
    used = {key: value for key, value in {**loss, "selfcorr": selfcorr}.items() if key in model.model_fields}
    return parse(model, used | checked.supervision, where, "supervision").model_dump()


def check_files(values: Params, plans: Mapping[str, Plan], where: Path) -> None:
    """Refuse what another stage would refuse minutes later, as far as the files that are there now tell.

    `plans`: of the rows. A root on object storage, and one that a manifest stands for, are not looked at. Raises
    UserError.
    """
    data = values.data
    for key, path in (("manifest", data.manifest), ("trusted", data.trusted)):
        if path is not None and not Path(path).exists():
            raise UserError(f"{where}: data.{key} = {path}: no such file{' or folder' * (key == 'trusted')}")
    if data.trusted is None and values.ingest.polygons != "trust":
        for name, plan in plans.items():
            if plan.supervision["method"] == "truth":
                needed = "needs trusted masks of train: set data.trusted, or ingest.polygons to trust"
                raise UserError(f"{where}: rows: {name} (supervision.method = truth) {needed}")
    root = data_root(data.root)
    if data.manifest is not None or not isinstance(root, Path) or root == DEMO:
        return
    data_yaml = find_data_yaml(root)
    if fixed := [plan.class_weights for plan in plans.values() if plan.class_weights != "frequency"]:
        names = class_names(read_data_yaml(data_yaml), str(data_yaml))
        for weights in fixed:
            weights_of(weights, torch.ones(len(names) + 1))


def main(
    out: Annotated[Path, typer.Option(help="Folder for one JSON file per run.")],
    checked: Annotated[Path, typer.Option(help="File that is written when all parameters are valid.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Check all parameters and write one resolved configuration per run."""
    values = load_params(Params, params, whole=True)
    plans = {name: resolve(values, name) for name in sorted(values.runs)}
    if unknown := [name for name in values.rows if name not in plans]:
        raise UserError(f"{params}: rows: {unknown[0]} is not one of runs: {', '.join(values.runs)}")
    check_files(values, {name: plans[name] for name in values.rows}, params)
    with new_folder(out) as part:
        for name, plan in plans.items():
            write_sealed(part / f"{name}.json", plan.model_dump(mode="json"))
    with new_file(checked) as part:
        part.write_text(CHECKED, encoding="utf-8")


if __name__ == "__main__":
    run(main)
