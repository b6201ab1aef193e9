"""Read the masks that people drew or corrected, `data.trusted`, into tables by image.

    python -m stages.trust --tables data/tables --out data/trusted

Training takes them as truth, so none may be of a test image. A mask that is refused stops the stage.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import UserError, printable, run
from stages.common.files import new_folder
from stages.common.options import ParamsFile, Tables
from stages.common.params import Section, load_params
from stages.data.tables import encode_label_map, write_table
from stages.formats.correction import Correction, Refused
from stages.ingestion.config import DataParams
from stages.trusted.accepted import read_provenance
from stages.trusted.admission import Admission, described
from stages.trusted.drawn_masks import TRUSTED


class Params(Section):
    data: DataParams


def main(
    tables: Tables,
    out: Annotated[Path, typer.Option(help="Folder for the tables of trusted masks, train and val.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the trusted masks of train and val; empty tables where data.trusted is null."""
    data = load_params(Params, params).data
    data.check_apart(out)
    trusted = data.trusted
    rows = {"train": [], "val": []} if trusted is None else read_trusted_masks(Path(trusted), tables, str(params))
    with new_folder(out) as part:
        for split, own in rows.items():
            write_table(part / f"{split}.parquet", TRUSTED, sorted(own, key=lambda row: row["image_id"]))


def read_trusted_masks(path: Path, tables: Path, params: str) -> dict[str, list[dict]]:
    """Rows of TRUSTED by split. Raises UserError after a line for each mask that is refused."""
    if not path.exists():
        raise UserError(f"{params}: data.trusted = {path}: no such file or folder")
    admission, refused = Admission(tables), 0
    provenance = read_provenance(path, admission.names)
    rows: dict[str, list[dict]] = {"train": [], "val": []}
    for found in admission.read(path):
        known = provenance.get(found.path, {}) if isinstance(found, Correction) else {}
        image = admission.row_of[found.path] if isinstance(found, Correction) else None
        if known and known["image_sha256"] != image["sha256"]:
            found = Refused(found.path, "the image has changed since its mask was accepted", found.source)
        if isinstance(found, Refused):
            refused += 1
            typer.echo(printable(described(found)), err=True)
            continue
        rows[image["split"]].append(
            {
                "image_id": image["image_id"],
                "label_png": encode_label_map(found.label_map),
                "source": known.get("source") or found.source.removeprefix(str(path)).lstrip("/: ") or path.name,
                "exported_at": known.get("exported_at") or found.exported_at,
                "replaces": known.get("replaces"),
            }
        )
    if refused:
        raise UserError(f"{path}: {refused} masks are refused, see above: correct or remove them")
    typer.echo(f"trusted masks: {len(rows['train'])} of train, {len(rows['val'])} of val", err=True)
    return rows


if __name__ == "__main__":
    run(main)
