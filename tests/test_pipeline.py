"""dvc.yaml tells the truth: each stage's code, parameters and paths are the ones that it really uses."""

import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.plan import Shared
from stages.student import plugins

ROOT = Path(__file__).parent.parent
PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
KINDS = ("deps", "params", "outs", "metrics", "plots")
WAITED_FOR = ("data/checked.txt", "data/demo", "data/fingerprint.json", "data/fingerprint_trusted.json")
"""What stages wait for and do not name; ingest and its fingerprint read data.root, which is data/demo by default, and
trust reads data.trusted."""

LOADED_BY_NAME = {"train": ("methods", "networks"), "evaluate": ("networks",)}
"""Packages whose modules a stage loads by name; the plan, and through it the trained student, hold their hashes."""

WITHOUT_EFFECT = {"train": ["loading"]}
"""Sections that a stage reads and DVC is not told of, because no byte depends on them: see tests/test_loop.py."""

UNUSED = {
    "ingest": {"stages/masks/labelmap.py", "stages/masks/shards.py"},
    "rasterize": {"stages/trusted/accepted.py", "stages/trusted/admission.py"},
    "appraise": {"stages/data/decoding.py", "stages/data/images.py", "stages/data/root_files.py"},
    "train": {"stages/masks/labelmap.py"},
    "evaluate": {"stages/masks/labelmap.py", "stages/evaluation/palette.py"},
    "report": {
        "stages/masks/labelmap.py",
        "stages/evaluation/average_precision.py",
        "stages/evaluation/card.py",
        "stages/evaluation/confidence.py",
        "stages/evaluation/operating_points.py",
        "stages/evaluation/predicting.py",
        "stages/evaluation/scored_shards.py",
        "stages/evaluation/seed_runs.py",
        "stages/evaluation/tally.py",
    },
}
"""Files in the folders that a stage declares and does not import: an edit there reruns it without need.

`plan` declares all code and takes seconds; so does `weights`, which builds one network of each of its packages, and
`trust`, which reads every format: rasterize runs again only where its tables change.
"""


def stages(path: str) -> dict[str, dict]:
    """Stage name to its definition, a `foreach` stage by its body."""
    declared = YAML(typ="safe").load((ROOT / path).read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in declared.items()}


STAGES = stages("dvc.yaml") | stages("data/dvc.yaml")
PROBE = """
import importlib, json, sys, pathlib
modules = [importlib.import_module(name) for name in sys.argv[1:]]
root = pathlib.Path.cwd()
files = {pathlib.Path(m.__file__).relative_to(root).as_posix() for n, m in sys.modules.items()
         if n.startswith("stages.") and getattr(m, "__file__", None)}
model = getattr(modules[0], "Params", None)
print(json.dumps({"files": sorted(f for f in files if not f.endswith("__init__.py")),
                  "sections": sorted(model.model_fields) if model else [],
                  "torch": "torch" in sys.modules}))
"""


def module_of(stage: dict) -> str:
    words = shlex.split(stage["cmd"])
    return words[words.index("-m") + 1]


@cache
def probe(*modules: str) -> dict:
    """What importing `modules` in a fresh interpreter loads."""
    run = subprocess.run([sys.executable, "-c", PROBE, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def loaded(name: str) -> dict:
    """What stage `name` loads, with all that it may load by name."""
    packages = LOADED_BY_NAME.get(name, ())
    by_name = [f"stages.{package}.{module}" for package in packages for module in plugins.names(package)]
    return probe(module_of(STAGES[name]), *by_name)


@pytest.fixture(scope="module", autouse=True)
def all_loaded():
    """Every stage is loaded at once, on all cores: importing takes nearly all of the time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(loaded, STAGES))


def code_of(name: str) -> list[str]:
    """Files that stage `name` imports, with all that it may load by name, less what lies in those packages."""
    return [file for file in loaded(name)["files"] if file.split("/")[1] not in LOADED_BY_NAME.get(name, ())]


def declared_code(name: str) -> list[str]:
    return [path for path in paths(STAGES[name]["deps"]) if path == "stages" or path.startswith("stages/")]


def unused(name: str) -> set[str]:
    """Files with code in the folders that stage `name` declares and does not import."""
    files = [file for path in declared_code(name) for file in (ROOT / path).rglob("*.py") if file.stat().st_size]
    return {file.relative_to(ROOT).as_posix() for file in files} - set(code_of(name))


def paths(entries: list) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def sections(stage: dict) -> list[str]:
    """Sections that a stage declares; a parameter file without keys is all of it."""
    found = []
    for entry in stage.get("params", []):
        found += (next(iter(entry.values())) or list(PARAMS)) if isinstance(entry, dict) else [entry]
    return found


@pytest.mark.parametrize("name", STAGES)
def test_every_file_that_a_stage_imports_lies_in_what_it_declares(name):
    declared = declared_code(name)
    if STAGES[name].get("always_changed"):
        return
    outside = [file for file in code_of(name) if not any(file == d or file.startswith(f"{d}/") for d in declared)]
    assert outside == []


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("plan", "weights", "trust")])
def test_what_a_stage_declares_and_does_not_import_is_listed(name):
    assert unused(name) == UNUSED.get(name, set())


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_declares_a_folder_in_vain(name):
    imported = code_of(name)
    for path in declared_code(name):
        assert any(file == path or file.startswith(f"{path}/") for file in imported), path


def test_dvc_yaml_names_folders_and_stays_readable():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200
    for name, stage in STAGES.items():
        own = f"stages/{module_of(stage).split('.')[-1]}.py"
        assert [path for path in declared_code(name) if path.endswith(".py")] in ([own], []), name


def test_no_two_packages_hold_files_of_one_name_but_their_config():
    homes = defaultdict(list)
    for file in (ROOT / "stages").rglob("*.py"):
        homes[file.name].append(file.relative_to(ROOT).as_posix())
    assert {n: f for n, f in homes.items() if len(f) > 1 and n not in ("__init__.py", "config.py")} == {}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_sections_it_reads(name):
    read = sections(STAGES[name]) + WITHOUT_EFFECT.get(name, [])
    assert sorted(read) == loaded(name)["sections"]


@pytest.mark.parametrize("name", STAGES)
def test_every_path_of_a_command_is_a_dependency_or_an_output(name):
    stage = STAGES[name]
    declared = [path for kind in KINDS for path in paths(stage.get(kind, []))]
    words = [word for word in shlex.split(stage["cmd"]) if "/" in word]
    for word in words:
        inside = [path for path in declared if path == word or path.startswith(word + "/")]
        assert inside, f"{word} is in the command of {name}, but neither it nor anything in it is declared"


@pytest.mark.parametrize("name", STAGES)
def test_every_declared_path_is_named_in_the_command(name):
    stage = STAGES[name]
    words = [word for word in shlex.split(stage["cmd"]) if "/" in word]
    for kind in ("deps", "outs", "metrics", "plots"):
        for path in paths(stage.get(kind, [])):
            if path in ("stages", *WAITED_FOR) or path.startswith("stages/"):
                continue
            assert any(path == word or path.startswith(word + "/") for word in words), f"{name}: {path}"


def test_the_probe_sees_an_undeclared_import(tmp_path):
    """The test above can fail: a module that imports one file more is seen to."""
    assert "stages/data/tables.py" in probe("stages.appraise")["files"]
    assert "stages/training/loop.py" not in probe("stages.appraise")["files"]


@pytest.mark.parametrize(
    "module", ["stages.fingerprint", "stages.ingest", "stages.synthesize", "stages.report", "stages.appraise"]
)
def test_light_stages_do_not_load_torch(module):
    assert not probe(module)["torch"]


def needed_for(name: str) -> set[str]:
    """Paths that stage `name` depends on, and those that their makers depend on, and so on."""
    found, waiting = set(), paths(STAGES[name]["deps"])
    while waiting:
        path = waiting.pop()
        found.add(path)
        makers = [
            maker
            for maker, stage in STAGES.items()
            for out in (made for kind in KINDS[2:] for made in paths(stage.get(kind, [])))
            if out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/")
        ]
        waiting += [dep for maker in makers for dep in paths(STAGES[maker]["deps"]) if dep not in found]
    return found


def test_training_cannot_reach_test_images_or_human_masks():
    reachable = paths(STAGES["train"]["deps"])
    assert not [path for path in reachable if "truth" in path or "test" in path or "data/demo" in path]


def test_what_training_learns_from_is_made_of_trusted_masks_and_never_of_truth():
    """Truth scores, trusted masks teach: no path leads from truth to training, and one does from what people drew."""
    assert not [path for path in needed_for("train") if "truth" in path]
    assert {"data/trusted", "data/fingerprint_trusted.json"} <= needed_for("train")
    assert not [path for path in needed_for("ingest") if "trusted" in path], "a corrected mask reads no data set again"


def test_the_proof_that_training_cannot_reach_truth_can_fail():
    """Evaluation needs both; and were truth an input of trust, training would reach it."""
    assert {"data/truth", "data/trusted"} <= needed_for("evaluate")
    deps = STAGES["trust"]["deps"]
    try:
        deps.append("data/truth")
        assert "data/truth" in needed_for("train")
    finally:
        deps.remove("data/truth")


def test_every_section_of_params_is_read_by_some_stage():
    read = {section for name, stage in STAGES.items() if name != "plan" for section in sections(stage)}
    read |= set(Shared.model_fields) | {"rows", "runs"} | set(WITHOUT_EFFECT["train"])
    assert read == set(PARAMS)


def test_every_stage_waits_for_the_check_of_the_parameters():
    """By what is made, not by what is written first: also with `data.root` outside, where nothing is synthesized."""
    made_by = {
        path: name for name, stage in STAGES.items() for kind in KINDS[2:] for path in paths(stage.get(kind, []))
    }

    def waits(name: str) -> bool:
        needed = {
            maker
            for dep in paths(STAGES[name]["deps"])
            for path, maker in made_by.items()
            if dep == path or dep.startswith(f"{path}/") or path.startswith(f"{dep}/")
        }
        return "plan" in needed or any(waits(maker) for maker in needed - {name})

    assert [name for name in STAGES if name != "plan" and not waits(name)] == []


def test_stage_files_are_short_and_no_stage_imports_a_stage():
    verbs = {path.stem for path in (ROOT / "stages").glob("*.py")}
    files = sorted(path for path in (ROOT / "stages").rglob("*.*") if path.suffix in (".py", ".html", ".js", ".css"))
    for path in files:
        lines = path.read_text().splitlines()
        assert len(lines) <= 250, path
        for line in lines if path.suffix == ".py" else ():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("stages."):
                assert words[1].split(".")[1] not in verbs, f"{path}: {line}"
