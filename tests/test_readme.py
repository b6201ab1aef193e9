"""README and the pages beside it: the tree is the one on disk; settings, commands, files and links exist."""

import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages import plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAPER = (ROOT / "docs/paper.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ALWAYS = ("plan", "fingerprint")
"""Stages that run after any change of the code, or always."""
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md", ROOT / "data/weights/README.md"]


def on_disk() -> set[str]:
    """Top-level entries and the children of stages/, as git has them; folders end with a slash."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = set()
    for path in listing.splitlines():
        first, _, rest = path.partition("/")
        found.add(first + "/" if rest else first)
        if first == "stages" and rest:
            child, _, deeper = rest.partition("/")
            found.add(f"stages/{child}/" if deeper else f"stages/{child}")
    return found - {"stages/__init__.py"}


def in_contributing() -> set[str]:
    """The paths of the tree there: names with one space between them, then two spaces or more and a remark."""
    block = re.search(r"## The tree\n+```text\n(.*?)```", CONTRIBUTING, re.DOTALL).group(1)
    paths, parent = set(), ""
    for line in block.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if line.startswith(" "):
            paths |= {parent + name for name in names}
        else:
            parent = names[0]
            paths |= set(names)
    return paths


def test_the_tree_in_contributing_is_the_tree_on_disk():
    assert in_contributing() == on_disk()


def test_every_setting_that_the_readme_and_the_page_on_the_paper_name_exists():
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for setting in re.findall(r"-S '?([a-z_.]+)=", README + PAPER):
        value = params
        for key in setting.split("."):
            assert key in value, setting
            value = value[key]


def test_the_papers_setting_is_one_that_plan_accepts(tmp_path):
    """With the page's own words, as DVC puts them into params.yaml, but for the data set, which is not here."""
    block = re.search(r"## The paper's own setting.*?```console\n(.*?)```", PAPER, re.DOTALL).group(1)
    words = shlex.split(block.replace("\\\n", " "))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    values = [value for flag, value in pairwise(words) if flag == "-S"]
    apply_overrides(tmp_path / "params.yaml", [*values, "data.root=data/demo"])
    plan.main(tmp_path / "plan", tmp_path / "checked.txt", tmp_path / "params.yaml")
    assert json.loads((tmp_path / "plan/boxes2pixels.json").read_text())["network"]["width"] == 256


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_every_make_target_that_the_readme_names_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_describes_every_stage_and_every_run():
    stages = [name for path in ("dvc.yaml", "data/dvc.yaml") for name in YAML(typ="safe").load(ROOT / path)["stages"]]
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for name in [*stages, *params["runs"]]:
        assert f"`{name}`" in README or f"`{name}@RUN`" in README, name


def test_the_packages_that_contributing_lists_per_stage_are_those_of_the_pipeline():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+)", CONTRIBUTING, re.MULTILINE)
    listed = {stage: set(packages.strip().split(", ")) for stage, packages in rows if stage not in ALWAYS}
    declared = {
        stage: {path.removeprefix("stages/") for path in body.get("do", body)["deps"] if re.match(r"stages/\w+$", path)}
        for stage, body in stages.items()
        if stage not in ALWAYS
    }
    assert listed == declared


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in PAGES))
def test_every_file_that_a_page_links_to_exists(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in PAGES))
def test_every_file_of_the_code_that_a_page_names_exists(page):
    for path in re.findall(r"`((?:stages|tests|benchmarks)/[\w/.]+)`", (ROOT / page).read_text()):
        assert "NAME" in path or (ROOT / path).exists(), path
