"""A copy of the pipeline, for benchmarks and tests that run DVC itself."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_pipeline(project: Path) -> None:
    """Code and pipeline files into the folder `project`; parameters, data set and `dvc init` are the caller's."""
    shutil.copytree(ROOT / "stages", project / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "data").mkdir(exist_ok=True)
    for name in ("dvc.yaml", "data/dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project / name)
