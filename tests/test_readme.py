"""The README's tree is the tree on disk, and its commands exist."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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


def in_the_readme() -> set[str]:
    """The paths of the README's tree: names with one space between them, then two spaces or more and a remark."""
    block = re.search(r"## The tree\n+```text\n(.*?)```", README, re.DOTALL).group(1)
    paths, parent = set(), ""
    for line in block.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if line.startswith(" "):
            paths |= {parent + name for name in names}
        else:
            parent = names[0]
            paths |= set(names)
    return paths


def test_the_tree_in_the_readme_is_the_tree_on_disk():
    assert in_the_readme() == on_disk()


def test_every_setting_that_the_readme_names_exists():
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for setting in re.findall(r"-S '?([a-z_.]+)=", README):
        value = params
        for key in setting.split("."):
            assert key in value, setting
            value = value[key]


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_every_make_target_that_the_readme_names_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_describes_every_stage_and_every_run():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for name in [*stages, *params["runs"]]:
        assert f"`{name}`" in README or f"`{name}@RUN`" in README, name
