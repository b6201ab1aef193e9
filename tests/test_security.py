"""What SECURITY.md promises about code: nothing in the package runs what it reads."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "telnetlib", "ftplib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load", "pandas.read_pickle"}


def name_of(node: ast.expr) -> str:
    """Dotted name of what is called: `a.b.c`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    above = name_of(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{above}.{node.attr}" if above else ""


def offences(source: str) -> list[str]:
    """What in `source` could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module.split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if name in CALLS:
                found.append(name)
            if name == "torch.load" and given.get("weights_only") is not True:
                found.append("torch.load without weights_only=True")
            if name in ("np.load", "numpy.load") and given.get("allow_pickle", False) is not False:
                found.append("numpy.load with pickles")
            if name == "YAML" and given.get("typ") not in ("safe", "base"):
                found.append("YAML that is not safe")
            if given.get("shell") is True:
                found.append(f"{name} through a shell")
    return found


def test_nothing_in_the_package_runs_what_it_reads():
    files = sorted((ROOT / "stages").rglob("*.py"))
    assert len(files) > 50
    assert {str(path): offences(path.read_text()) for path in files if offences(path.read_text())} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import yaml",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "YAML(typ='unsafe').load(text)",
        "YAML().load(text)",
        "subprocess.run(text, shell=True)",
        "import os\nos.system('id')",
        "torch.hub.load('a', 'b')",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert offences(source)


def test_the_search_lets_the_safe_forms_pass():
    assert not offences(
        "torch.load(path, weights_only=True)\nYAML(typ='safe').load(x)\nYAML(typ='base').load(x)\n"
        "model.eval()\nre.compile('a')"
    )


def test_no_library_makes_an_identity_to_report_under(tmp_path):
    """ONNX Runtime and OpenVINO leave theirs in the home folder as soon as they are imported, but for CI."""
    here = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", "import stages, onnxruntime, openvino"], cwd=ROOT, env=here, check=True)
    assert list(tmp_path.rglob("*")) == []
