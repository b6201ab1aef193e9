"""A process in which nothing can be imported but what some dependency groups install."""

import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BLOCKED = """
import importlib.abc, json, runpy, sys
blocked = set(json.loads(sys.argv[1]))
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed here")
sys.meta_path.insert(0, Wall())
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def not_in(*groups: str) -> list[str]:
    """Everything that can be imported here and that these dependency groups do not install."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    installed, todo = set(), [Requirement(line).name for group in groups for line in known[group]]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in installed:
            installed.add(name)
            needed = [Requirement(line) for line in metadata.requires(name) or []]
            todo += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    packages = metadata.packages_distributions().items()
    names = {
        package: {re.sub(r"[-_.]+", "-", distribution).lower() for distribution in distributions}
        for package, distributions in packages
    }
    return sorted(package for package, distributions in names.items() if not distributions & installed)


def behind_wall(module: str, blocked: list[str]) -> list[str]:
    """The command line of a module's `main` where none of the packages `blocked` can be imported."""
    return [sys.executable, "-c", BLOCKED, json.dumps(blocked), module]
