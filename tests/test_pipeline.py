"""dvc.yaml tells the truth: each stage's code, parameters and paths are the ones that it really uses."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.plan import Shared

ROOT = Path(__file__).parent.parent
PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())


def stages(path: str) -> dict[str, dict]:
    """Stage name to its definition, a `foreach` stage by its body."""
    declared = YAML(typ="safe").load((ROOT / path).read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in declared.items()}


CHECKED = "data/checked.txt"
"""What every stage waits for; read by none."""

PRETRAINING = {f"pretrain {name}": stage for name, stage in stages("data/weights/dvc.yaml").items()}
PIPELINE = stages("dvc.yaml")
STAGES = PIPELINE | PRETRAINING
PROBE = """
import importlib, json, sys, pathlib
module = importlib.import_module(sys.argv[1])
root = pathlib.Path.cwd()
files = {pathlib.Path(m.__file__).relative_to(root).as_posix() for n, m in sys.modules.items()
         if n.startswith("stages.") and getattr(m, "__file__", None)}
model = getattr(module, "Params", None)
print(json.dumps({"files": sorted(f for f in files if not f.endswith("__init__.py")),
                  "sections": sorted(model.model_fields) if model else [],
                  "torch": "torch" in sys.modules}))
"""


WITHOUT_EFFECT = {"train": ["loading"]}
"""Sections that a stage reads and DVC is not told of, for no byte depends on them: see tests/test_loop.py."""

KINDS = ("deps", "params", "outs", "metrics", "plots")


def module_of(stage: dict) -> str:
    words = shlex.split(stage["cmd"])
    return words[words.index("-m") + 1]


def probe(module: str) -> dict:
    """What importing `module` in a fresh interpreter loads."""
    run = subprocess.run([sys.executable, "-c", PROBE, module], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def paths(entries: list) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def sections(stage: dict) -> list[str]:
    """Sections that a stage declares; a parameter file without keys is all of it."""
    found = []
    for entry in stage.get("params", []):
        found += (next(iter(entry.values())) or list(PARAMS)) if isinstance(entry, dict) else [entry]
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_code_it_imports(name):
    declared = sorted(path for path in paths(STAGES[name]["deps"]) if path.endswith(".py"))
    assert declared == probe(module_of(STAGES[name]))["files"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_the_files_that_lie_beside_its_code(name):
    """Templates and the like, which a module names and reads from its own folder."""
    declared = {path for path in paths(STAGES[name]["deps"]) if path.startswith("stages/")}
    code = [ROOT / path for path in declared if path.endswith(".py")]
    beside = {
        other.relative_to(ROOT).as_posix()
        for module in code
        for other in module.parent.iterdir()
        if other.is_file() and other.suffix != ".py" and f'"{other.name}"' in module.read_text(encoding="utf-8")
    }
    assert {path for path in declared if not path.endswith(".py")} == beside


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_sections_it_reads(name):
    read = sections(STAGES[name]) + WITHOUT_EFFECT.get(name, [])
    assert sorted(read) == probe(module_of(STAGES[name]))["sections"]


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
            if path.startswith("stages/") or path in ("${data.root}", CHECKED):
                continue
            assert any(path == word or path.startswith(word + "/") for word in words), f"{name}: {path}"


def test_the_probe_sees_an_undeclared_import(tmp_path):
    """The test above can fail: a module that imports one file more is seen to."""
    assert "stages/common/files.py" in probe("stages.plan")["files"]
    assert "stages/training/loop.py" not in probe("stages.plan")["files"]


@pytest.mark.parametrize("module", ["stages.plan", "stages.ingest", "stages.synthesize"])
def test_light_stages_do_not_load_torch(module):
    assert not probe(module)["torch"]


def test_training_cannot_reach_test_images_or_human_masks():
    reachable = paths(STAGES["train"]["deps"])
    assert not [path for path in reachable if "truth" in path or "test" in path or path == "${data.root}"]


def test_the_pretrainings_are_frozen_and_their_results_survive_until_there_are_new_ones():
    for stage in PRETRAINING.values():
        assert stage["frozen"]
        assert all(next(iter(out.values())) == {"cache": False, "persist": True} for out in stage["outs"])


def test_every_section_of_params_is_read_by_some_stage():
    read = {section for name, stage in PIPELINE.items() if name != "plan" for section in sections(stage)}
    read |= set(Shared.model_fields) | {"rows", "runs"} | set(WITHOUT_EFFECT["train"])
    assert read == set(PARAMS)


def test_every_stage_waits_for_the_check_of_the_parameters():
    """By what is made, not by what is written first: also with `data.root` outside, where nothing is synthesized."""
    made_by = {
        path: name for name, stage in PIPELINE.items() for kind in KINDS[2:] for path in paths(stage.get(kind, []))
    }

    def waits(name: str) -> bool:
        needed = {
            maker
            for dep in paths(PIPELINE[name]["deps"])
            for path, maker in made_by.items()
            if dep == path or dep.startswith(f"{path}/") or path.startswith(f"{dep}/")
        }
        return "plan" in needed or any(waits(maker) for maker in needed - {name})

    assert [name for name in PIPELINE if name != "plan" and not waits(name)] == []


def test_stage_files_are_short_and_no_stage_imports_a_stage():
    verbs = {path.stem for path in (ROOT / "stages").glob("*.py")}
    for path in sorted((ROOT / "stages").rglob("*.py")):
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, path
        for line in lines:
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("stages."):
                assert words[1].split(".")[1] not in verbs, f"{path}: {line}"
