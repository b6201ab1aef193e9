"""docs/cluster.md: its options exist, its YAML is a RayJob that runs what it should, its scripts are bash."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.engine import engines
from stages.engine.shard_jobs import wanted

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_of_options_is_that_of_the_code():
    listed = set(re.findall(r"^\| `(--[a-z-]+)[^|]*\| ([^|]*) \|", PAGE, re.MULTILINE))
    named = {option: re.findall(r"BOXES2PIXELS_[A-Z_]+", environment) for option, environment in listed}
    kinds = (engines.EngineOption, engines.Address, engines.Gpus, engines.Shards, engines.ShardsUrl)
    options = [one.__metadata__[0] for one in kinds]
    assert named == {one.default: [one.envvar] if one.envvar else [] for one in options}
    assert set(re.findall(r"BOXES2PIXELS_[A-Z_]+", PAGE)) == {one.envvar for one in options if one.envvar}


def test_the_ray_job_mounts_the_shared_folder_everywhere_and_runs_dvc():
    (job,) = (YAML(typ="safe").load(text) for text in blocks("yaml"))
    assert (job["kind"], job["apiVersion"]) == ("RayJob", "ray.io/v1")
    cluster = job["spec"]["rayClusterSpec"]
    assert "dvc repro rasterize" in job["spec"]["entrypoint"] and cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "work", "mountPath": "/work"}]
        assert [volume["name"] for volume in pod["volumes"]] == ["work"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1
    assert groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("script", blocks("bash"))
def test_the_scripts_are_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_job_array_asks_for_ranges_without_gap_or_overlap():
    script = blocks("bash")[1]
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", script).groups())
    found = []
    for task in range(first, last + 1):
        lines = [line for line in script.splitlines() if re.match(r"each=|first=", line)]
        asked = re.search(r'--shards "(.*)"', script)[1]
        shell = "\n".join([f"SLURM_ARRAY_TASK_ID={task}", *lines, f'echo "{asked}"'])
        text = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.strip()
        found += wanted(text, 155)
    assert found == list(range(155))
