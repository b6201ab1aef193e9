"""Findings: what was dropped, changed or ignored, and the list of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.common.files import write_csv
from stages.data.tables import REJECTS, write_table

Action = Literal[
    "row dropped",
    "box clipped",
    "image dropped",
    "mask dropped",
    "mask kept",
    "file ignored",
    "image kept",
    "stage stopped",
    "noted",
]


@dataclass(frozen=True)
class Reject:
    """One finding. `file` is relative to the data root, `line` counts from 1; findings are counted by `kind`.

    `rows`: rows of labels that are lost by it.
    """

    file: str
    line: int | None
    kind: str
    reason: str
    action: Action
    rows: int = 0


def write_rejects(folder: Path, rejects: list[Reject]) -> None:
    """Write rejects.parquet and the same as rejects.csv, sorted by file and line."""
    ordered = sorted(rejects, key=lambda reject: (reject.file, reject.line or 0, reject.reason))
    rows = [{name: getattr(reject, name) for name in REJECTS.names} for reject in ordered]
    write_table(folder / "rejects.parquet", REJECTS, rows)
    write_csv(folder / "rejects.csv", REJECTS.names, (row.values() for row in rows))
