"""The pipeline for benchmarks and tests: a copy for those that run DVC itself, single commands for the others."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
RUN = "boxes2pixels"


def copy_pipeline(project: Path) -> None:
    """Code and pipeline files into the folder `project`; parameters, data set and `dvc init` are the caller's."""
    shutil.copytree(ROOT / "stages", project / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "data").mkdir(exist_ok=True)
    for name in ("dvc.yaml", "data/dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project / name)


def command(stage: str, **item: object) -> list[str]:
    """The command of a stage in dvc.yaml, with the values of `${item}` or `${item.KEY}`; others are RUN."""
    entry = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    filled = re.sub(
        r"\$\{(?:item\.)?(\w+)\}", lambda found: str(item.get(found[1], RUN)), entry.get("do", entry)["cmd"]
    )
    words = shlex.split(filled)
    return [sys.executable if word == "python" else word for word in words]


def environment(project: Path) -> dict[str, str]:
    """Environment of a command in any folder: it imports this checkout's code, and its work folder is `project`'s."""
    return {**os.environ, "DVC_ROOT": str(project), "PYTHONPATH": str(ROOT)}
