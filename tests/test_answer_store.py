"""The key under which a teacher's answer is cached."""

import json
import subprocess
import sys
from pathlib import Path

from stages.teacher.answer_store import CODE
from stages.teacher.sam import SamTeacher

ROOT = Path(__file__).parent.parent
WITHOUT_EFFECT = {
    "stages.teacher.config",  # the values themselves are part of the key
    "stages.common.errors",
    "stages.common.files",
    "stages.common.params",
    "stages.common.workdir",  # where answers are cached
    "stages.data.remote",
    "stages.data.root_files",  # which file is opened; its bytes are part of the key
    "stages.data.tables",
}


def loaded_by(modules: str) -> set[str]:
    """Names of this project's modules, packages apart, that `import modules` loads in a fresh interpreter."""
    probe = f"import json, sys, {modules}; print(json.dumps([name for name, module in sys.modules.items() "
    probe += "if name.startswith('stages.') and not hasattr(module, '__path__')]))"
    said = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(json.loads(said))


def test_the_key_counts_all_the_code_that_an_answer_comes_from():
    loaded = loaded_by(f"stages.teacher.prompting, stages.data.images, {SamTeacher.__module__}")
    # the teacher's own module is counted beside them
    assert {module.__name__ for module in CODE} == loaded - WITHOUT_EFFECT - {SamTeacher.__module__}
