"""The real DAG, run by DVC in a temporary repository on a tiny data set."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks.pipeline_copy import copy_pipeline

ROOT = Path(__file__).parents[2]
METRICS = ("boxes2pixels", "no_selfcorr", "two_sided")


def call(repo: Path, *words: str) -> str:
    """Run a command of this environment in `repo`; returns what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    done = subprocess.run(words, cwd=repo, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    """The project as it stands, in a DVC repository of its own, with a data set and runs that take seconds."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "data/weights/embedded", folder / "data/weights/embedded")
    copy_pipeline(folder)
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["synthesize"] |= {"train": 6, "val": 3, "test": 3}
    params["view"]["size_px"] = 56
    params["network"]["width"] = 16
    # so that 18 steps predict some defect: without one, all runs have the same scores
    params["train"] |= {"epochs": 6, "min_steps": 0, "batch_size": 2, "validate_every": 3}
    params["train"] |= {"optimizer": "adamw", "lr": 1e-2}
    params["loss"]["class_weights"] = [1.0, 30.0, 30.0]  # so that a run of seconds predicts defects at all
    params["selfcorr"] |= {"tau": 0.9, "warmup": 0.0}
    params["rows"] = list(METRICS)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    call(folder, "git", "init", "--quiet", "--initial-branch=main")
    call(folder, "git", "config", "user.name", "test")
    call(folder, "git", "config", "user.email", "test@example.org")
    call(folder, "dvc", "init", "--quiet")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    call(folder, "dvc", "config", "core.analytics", "false")
    call(folder, "dvc", "repro")
    call(folder, "git", "add", "--all")
    call(folder, "git", "commit", "--quiet", "--message", "first")
    return folder


def scores(repo: Path) -> dict[str, dict]:
    return {name: json.loads((repo / "metrics" / f"{name}.json").read_text()) for name in METRICS}


def curve(repo: Path, name: str) -> str:
    return (repo / "data/curves" / name / "0/loss.csv").read_text()


def test_the_dag_runs_from_nothing_to_scores_and_a_report(repo):
    for name in METRICS:
        assert scores(repo)[name]["test"]["images"] == 3
    assert (repo / "metrics/summary.json").exists()
    assert "boxes2pixels" in (repo / "data/report/index.html").read_text()
    assert '<figure class="picture"' in (repo / "data/report/index.html").read_text()


def test_nothing_runs_again_when_nothing_changed(repo):
    said = call(repo, "dvc", "repro")
    assert ran(said) == []


def test_a_changed_tau_retrains_the_runs_that_self_correct_and_replays_truly(repo):
    """A replay from the run cache must bring back the scores that belong to its parameters, not leave the last ones."""
    before, curves = scores(repo), {name: curve(repo, name) for name in METRICS}
    said = call(repo, "dvc", "exp", "run", "-S", "selfcorr.tau=0.02")
    assert "Running stage 'train@boxes2pixels-0'" in said
    assert "Running stage 'train@no_selfcorr-0'" not in said
    assert "Running stage 'rasterize'" not in said
    changed, changed_curve = scores(repo), curve(repo, "boxes2pixels")
    assert changed["boxes2pixels"] != before["boxes2pixels"]
    assert changed["no_selfcorr"] == before["no_selfcorr"]
    assert changed_curve != curves["boxes2pixels"]

    said = call(repo, "dvc", "exp", "run", "-S", "selfcorr.tau=0.9")
    assert "Running stage 'train@" not in said, "the run cache holds this run"
    assert scores(repo) == before
    said = call(repo, "dvc", "exp", "run", "-S", "selfcorr.tau=0.02")
    assert "Running stage 'train@" not in said, "the run cache holds this run"
    assert scores(repo) == changed
    assert curve(repo, "boxes2pixels") == changed_curve
    difference = call(repo, "dvc", "metrics", "diff").splitlines()
    assert len(difference) <= 42
    assert any(line.split()[:2] == ["metrics/summary.json", "val_iou_bin.boxes2pixels"] for line in difference)
    assert "no_selfcorr" not in "\n".join(difference)
    shown = call(repo, *shlex.split(headline_command("dvc exp show")), "--no-pager").splitlines()
    assert max(map(len, shown)) <= 120
    assert shown[1].split() == ["Experiment", "test_iou_bin.boxes2pixels", "selfcorr.tau"]
    assert [line.split()[-1] for line in shown if line.split()[:1] in (["workspace"], ["main"])] == ["0.02", "0.9"]


def headline_command(start: str) -> str:
    """The README's command that begins with `start`."""
    return re.search(rf"^\$ ({start}.*?)( *#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE).group(1)


def test_plots_are_one_chart_per_quantity_and_none_fails(repo, tmp_path):
    said = call(repo, "dvc", "plots", "show", "--out", str(tmp_path))
    assert "failed" not in said
    page = (tmp_path / "index.html").read_text()
    assert page.count("vegaEmbed(") == 2
    titles = {json.loads(spec)["title"] for spec in re.findall(r"var spec = (\{.*?\});\s", page, re.DOTALL)}
    assert titles == {"Training loss", "mIoU_anom on val, against the pseudo-masks"}
    assert all(f'"run": "{name}"' in page for name in METRICS)


def ran(said: str) -> list[str]:
    """Names of the stages that DVC ran, but for `fingerprint`, which always runs."""
    return [name for name in re.findall(r"Running stage '([^']+)'", said) if not name.endswith(":fingerprint")]


def test_editing_a_method_reruns_its_runs_and_nothing_else(repo):
    path = repo / "stages/methods/two_sided.py"
    source = path.read_text()
    path.write_text(source.replace('"""Two-sided correction', '"""Edited: two-sided correction', 1))
    assert path.read_text() != source
    assert ran(call(repo, "dvc", "repro")) == ["plan", "train@two_sided-0", "evaluate@two_sided", "report"]
    path.write_text(source)
    call(repo, "dvc", "repro")


def test_editing_a_method_or_a_network_that_no_row_uses_reruns_the_plan_alone(repo):
    paths = [repo / "stages" / name for name in ("methods/boxseg.py", "networks/baseline.py")]
    sources = [path.read_text() for path in paths]
    for path, source in zip(paths, sources, strict=True):
        path.write_text(source + "# edited\n")
    assert ran(call(repo, "dvc", "repro")) == ["plan"]
    for path, source in zip(paths, sources, strict=True):
        path.write_text(source)


def test_a_new_run_runs_alone_and_a_new_method_is_one_file_and_an_entry_under_runs(repo):
    (repo / "stages/methods/plain.py").write_text(
        "from typing import Literal\n\n"
        "from stages.losses.config import HeadWeights\n"
        "from stages.losses.method import Method as BaseMethod\n"
        "from stages.losses.pixel import weighted_cross_entropy\n\n\n"
        "class Params(HeadWeights):\n    method: Literal['plain']\n\n\n"
        "class Method(BaseMethod):\n"
        "    def losses(self, logits, batch, moment, ema):\n"
        "        return {'fine': weighted_cross_entropy(logits.fine, batch.labels, moment.class_weights)}, {}\n"
    )
    changes = ("+runs.wide.network.width=24", "+runs.plain.supervision.method=plain")
    changes += ("rows=[boxes2pixels,no_selfcorr,two_sided,wide,plain]",)
    said = call(repo, "dvc", "exp", "run", *(word for change in changes for word in ("-S", change)))
    first, *middle, last = ran(said)
    assert (first, last) == ("plan", "report")
    assert sorted(middle) == ["evaluate@plain", "evaluate@wide", "train@plain-0", "train@wide-0"]
    (repo / "stages/methods/plain.py").unlink()
    call(repo, "git", "checkout", "--", "params.yaml")


def test_a_second_seed_trains_the_second_seed_alone(repo):
    call(repo, "dvc", "repro")
    before = scores(repo)
    said = call(repo, "dvc", "exp", "run", "-S", "seeds=[0,1]", "-S", "rows=[boxes2pixels]")
    assert "Running stage 'train@boxes2pixels-1'" in said
    assert "Running stage 'train@boxes2pixels-0'" not in said
    first, second = scores(repo)["boxes2pixels"]["val"]["iou_bin_by_seed"]
    assert first == before["boxes2pixels"]["val"]["iou_bin"]
    assert second is not None
    weights = [(repo / f"data/students/boxes2pixels/{seed}/student.safetensors").read_bytes() for seed in (0, 1)]
    assert weights[0] != weights[1]
    assert not (repo / "data/predictions/two_sided").exists(), "the report's inputs are those of its rows"
    call(repo, "git", "checkout", "--", "params.yaml")
    call(repo, "dvc", "repro")
    assert scores(repo) == before
    assert (repo / "data/predictions/two_sided").exists()


def test_a_wrong_value_is_refused_in_one_line_before_any_work(repo):
    """Only training reads `tau`, yet not even the data set is made, which the other change asks for."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", "selfcorr.tau=abc", "-S", "synthesize.seed=1"],
        cwd=repo,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: params.yaml: selfcorr.tau = 'abc': " in said
    assert [line for line in said.splitlines() if line.startswith("Running stage")] == ["Running stage 'plan':"]
    assert "Traceback" not in said
