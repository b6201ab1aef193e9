"""Fingerprint the data set, so that DVC runs ingest again when, and only when, a file of it has changed.

    python -m stages.fingerprint --out data/fingerprint.json --trusted data/fingerprint_trusted.json

The masks in data.trusted have a fingerprint of their own, so that a corrected mask does not rerun ingest. DVC runs this
stage each time and never looks into data.root itself: a pipe would block it forever, and a broken link would stop it.
For a file that ingest would refuse, the reason is hashed instead of the content. A file whose size, time of change and
inode are those of the last run is not read again. With `data.manifest` only the manifest is read: stages/manifest.py.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import run
from stages.common.files import sha256_file, write_json
from stages.common.options import ParamsFile
from stages.common.params import Section, load_params
from stages.common.workdir import fingerprint
from stages.data.remote import RemotePath, data_root
from stages.ingestion.config import DataParams
from stages.ingestion.root_states import marks_of, state_of


class Params(Section):
    data: DataParams


def main(
    out: Annotated[Path, typer.Option(help="JSON file for the number of files and their hash.")],
    trusted: Annotated[Path, typer.Option(help="The same for data.trusted.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Fingerprint the data set at data.root, and data.trusted."""
    data = load_params(Params, params).data
    manifest = data.manifest and {"manifest": sha256_file(Path(data.manifest))}
    write_json(out, manifest or taken(data_root(data.root)))
    drawn = None if data.trusted is None else Path(data.trusted)
    if drawn is None or drawn.is_dir():
        write_json(trusted, drawn and taken(drawn))
    else:
        file = drawn.resolve()  # it may be a link
        state = state_of(file.parent, file.name, None)
        write_json(trusted, {"files": 1, "sha256": fingerprint([drawn.name, state[-1]])})


def taken(root: Path | RemotePath) -> dict:
    """Number of the files below `root` that ingest can see, and a hash over their names and marks."""
    marks = marks_of(root)
    return {"files": len(marks), "sha256": fingerprint([(path, mark) for path, (_, mark) in marks.items()])}


if __name__ == "__main__":
    run(main)
