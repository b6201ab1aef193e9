"""List the files of a data set into a manifest, which then stands for it: DVC looks at the manifest alone.

    python -m stages.manifest /path/to/your/dataset --out manifest.parquet
    python -m stages.manifest s3://bucket/dataset --out manifest.parquet

For data sets whose files take too long to check: with `data.manifest: manifest.parquet`, `dvc repro` checks only the
manifest. It notices changes to the files only after this command has been run again.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, run
from stages.data.remote import data_root
from stages.ingestion.manifest_file import is_manifest, write_manifest
from stages.ingestion.root_states import folder_of, marks_of


def main(
    root: Annotated[str, typer.Argument(help="The data set: a folder or a URL.")],
    out: Annotated[Path, typer.Option(help="Parquet file for the manifest.")],
) -> None:
    """List the files of a data set, with their sizes and hashes (on object storage: ETags)."""
    if out.exists() and not is_manifest(out):
        raise UserError(f"{out}: exists, and is no manifest: use another --out, or remove it")
    where = data_root(root)
    files = marks_of(where)
    files.pop(os.path.relpath(out, folder_of(where)), None)  # it would change its own content
    write_manifest(out, files)
    typer.echo(f"{out}: {len(files):,} files", err=True)


if __name__ == "__main__":
    run(main)
