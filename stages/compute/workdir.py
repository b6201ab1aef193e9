"""Work that outlives a kill: checkpoints and finished pieces, under keys that say what they were made from.

It lies in `.dvc/tmp/boxes2pixels` of the project: outside of every stage's outputs, which DVC deletes before it runs a
stage; ignored by git and by DVC; kept by `dvc gc`; safe to delete whenever nothing runs. DVC tells every stage the root
of the project in DVC_ROOT, and in an experiment with `--temp` or `--queue`, whose workspace is a copy, that of the
project which the copy was made from: so all experiments share one folder. A key names all that its entry depends on,
so what they share is the same to the bit.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from stages.common.files import new_file, sha256_file

CODE = Path(__file__).parents[2]


def work_folder() -> Path:
    """Where work is kept; it may not exist yet. Without DVC it is `.work` in the current folder."""
    here = Path.cwd()
    roots = [Path(root)] if (root := os.environ.get("DVC_ROOT")) else [here, *here.parents]
    project = next((folder for folder in roots if (folder / ".dvc").is_dir()), None)
    return here / ".work" if project is None else project / ".dvc/tmp/boxes2pixels"


def fingerprint(parts: object) -> str:
    """Hex SHA-256 of anything that JSON can say; the order of mappings does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def files_fingerprint(paths: Iterable[Path]) -> str:
    """Hex SHA-256 over the bytes of files, and of all files in folders by name; what they lie in does not matter."""
    return fingerprint([[(name, sha256_file(file)) for name, file in _files(path)] for path in paths])


def code_fingerprint(modules: Iterable[ModuleType] | None = None) -> str:
    """Hex SHA-256 over the sources of `modules`; by default of all of this project that this process has loaded."""
    loaded = list(sys.modules.values()) if modules is None else modules
    files = {Path(file).resolve() for module in loaded if (file := getattr(module, "__file__", None))}
    ours = sorted(file for file in files if file.is_relative_to(CODE / "stages"))
    return fingerprint([(file.relative_to(CODE).as_posix(), sha256_file(file)) for file in ours])


def keep(path: Path, payload: bytes) -> None:
    """Write `payload` with its checksum, whole or not at all."""
    with new_file(path) as part:
        part.write_bytes(hashlib.sha256(payload).digest() + payload)


def kept(path: Path) -> bytes | None:
    """What `keep` wrote; None where there is nothing or, said on stderr, not the bytes that were written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if data[:32] == hashlib.sha256(data[32:]).digest():
        return data[32:]
    print(f"{path}: damaged, made anew", file=sys.stderr)
    return None


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_dir():
        return [(file.relative_to(path).as_posix(), file) for file in sorted(path.rglob("*")) if file.is_file()]
    return [("", path)]
