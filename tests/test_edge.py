"""The recipe for a machine that only predicts, run as the page has it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from stages import predict
from stages.common.params import write_digests
from stages.formats.writers import Format
from stages.runtime.graphs import embed, to_onnx
from stages.runtime.metadata import metadata_of
from stages.student.decision import ARGMAX
from tests.support.tiny_student import decided_student, image_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/predict.md").read_text()


def test_the_recipe_works_in_a_bare_environment(tmp_path):
    """With nothing of this environment; the index of packages is needed, which is a failure only in CI."""
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "images").mkdir()
    Image.fromarray(image_of((60, 90), seed=0)).save(tmp_path / "images/a.png")
    (tmp_path / "onnx").mkdir()
    student = decided_student("native")
    to_onnx(student, None, tmp_path / "onnx/student.onnx")
    embed(tmp_path / "onnx/student.onnx", metadata_of(student.config, ARGMAX, "0" * 12, False, None, {}))
    write_digests(tmp_path / "onnx")

    recipe = re.search(r"only predicts.*?```console\n(.*?)```", PAGE, re.DOTALL).group(1)
    *install, run = [line.removeprefix("$ ") for line in recipe.splitlines()]
    here = Path(sys.prefix).resolve()
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if here not in Path(folder).resolve().parents]
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["PATH"] = os.pathsep.join(folders)

    def call(*lines: str) -> subprocess.CompletedProcess:
        words = ["bash", "-ec", "\n".join(lines)]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

    installed = call(*install)
    if installed.returncode and not os.environ.get("CI"):
        pytest.skip(f"the packages could not be installed: {installed.stderr.strip().splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    assert call("source edge/bin/activate", "python -c 'import torch'").returncode == 1
    done = call("source edge/bin/activate", run)
    assert done.returncode == 0, done.stderr
    predict.main([str(tmp_path / "images")], tmp_path / "onnx", tmp_path / "here", list(Format), "cpu", False)
    assert (tmp_path / "masks/masks/a.png").read_bytes() == (tmp_path / "here/masks/a.png").read_bytes()
