"""What was not taken as it stood, and where it is written down."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.common.files import new_file
from stages.data.tables import REJECTS, write_table

Action = Literal[
    "row dropped", "box clipped", "image dropped", "mask dropped", "file ignored", "image kept", "stage stopped"
]


@dataclass(frozen=True)
class Reject:
    """One finding. `file` is relative to the data root, `line` counts from 1, findings are counted by `kind`."""

    file: str
    line: int | None
    kind: str
    reason: str
    action: Action


def write_rejects(folder: Path, rejects: list[Reject]) -> None:
    """Write rejects.parquet and, for people, rejects.csv, sorted by file and line."""
    ordered = sorted(rejects, key=lambda reject: (reject.file, reject.line or 0, reject.reason))
    rows = [{name: getattr(reject, name) for name in REJECTS.names} for reject in ordered]
    write_table(folder / "rejects.parquet", REJECTS, rows)
    with new_file(folder / "rejects.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, REJECTS.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
