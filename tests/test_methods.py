"""Every method trains in the loop, resumes to the same bits, and learns from trusted labels."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stages.common.errors import Stopped
from stages.common.params import load_params
from stages.masks import rle
from stages.plan import Params, resolve
from stages.student import plugins
from stages.training.config import Plan
from tests.support.tiny_student import student
from tests.support.train_split import samples_of
from tests.support.trainings import NEVER, Watched, few_frequency_samples, plan, stopped_at, train  # noqa: F401  a fixture among them

ROOT = Path(__file__).parent.parent


def of_project(run: str) -> Plan:
    """The plan of one of the project's own runs."""
    return resolve(load_params(Params, ROOT / "params.yaml"), run)


PIXEL_RUNS = ("two_sided", "gce", "sce", "nc")
METHOD_RUNS = (*PIXEL_RUNS, "boxinst", "discobox", "boxteacher", "boxseg")


def test_there_is_a_run_of_every_method():
    methods = {of_project(run).supervision["method"] for run in (*METHOD_RUNS, "boxes2pixels")}
    assert methods | {"truth"} == set(plugins.names("methods")), "truth needs trusted masks: see test_oracle.py"


@pytest.mark.parametrize("run", METHOD_RUNS)
def test_every_method_trains_and_resumes_to_the_same_bits(split, tmp_path, run):
    """Six steps, stopped in the fifth; with whatever the method has learnt about its student, and copy-paste."""
    supervision = of_project(run).supervision
    if run == "two_sided":
        supervision = {**supervision, "warmup": 0.2}
    if run == "boxseg":
        easy = {**supervision["copy_paste"], "min_quality": 0.0, "min_area_px": 1}
        supervision = {**supervision, "copy_paste": easy}

    def trained(checkpoint, sample=NEVER):
        network = student()
        samples = Watched(samples_of(split, with_boxes=True, defect_share=1.0), stopped_at(sample))
        result, history = train(network, samples, plan(network, 3, supervision=supervision), score, checkpoint, split)
        return {key: value.numpy().tobytes() for key, value in result.state_dict().items()}, history

    score = lambda average: -average.fine.logits.weight.double().abs().sum().item()  # noqa: E731
    undisturbed = trained(None)
    assert all(math.isfinite(row["loss"]) for row in undisturbed[1].epochs)
    with pytest.raises(Stopped):
        trained(tmp_path / "checkpoint", sample=10)
    assert trained(tmp_path / "checkpoint") == undisturbed


@pytest.mark.parametrize("run", ["boxes2pixels", *METHOD_RUNS])
def test_every_method_learns_from_trusted_labels(split, run):
    """One step; methods that learn by boxes alone have a loss of their own for them."""
    masks = split.masks.to_pylist()
    masks[1]["trusted"] = rle.encode(np.ones((40, 200), bool), (0, 0), (40, 200))
    split, network = split._replace(masks=pa.Table.from_pylist(masks)), student()
    supervision = {**of_project(run).supervision, **({"copy_paste": None} if run == "boxseg" else {})}
    samples = samples_of(split, with_boxes=run in METHOD_RUNS, defect_share=1.0)
    plan_ = plan(network, 1, supervision=supervision, batch_size=4)
    _, history = train(network, samples, plan_, lambda _: 0.0, split=split)
    assert ("loss_trusted" in history.epochs[0]) == (run not in ("boxes2pixels", *PIXEL_RUNS))
    assert math.isfinite(history.epochs[0]["loss"])


ALONE = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    package = name.rpartition(".")[0]
    importlib.import_module(name)
    found[name] = [other for other in list(sys.modules) if other.startswith(f"{package}.")]
    for other in found[name]:
        del sys.modules[other]
print(json.dumps(found))
"""


def test_no_method_and_no_network_imports_another():
    modules = [f"stages.{package}.{name}" for package in ("methods", "networks") for name in plugins.names(package)]
    run = subprocess.run([sys.executable, "-c", ALONE, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {name: [name] for name in modules}
