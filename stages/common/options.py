"""Command line options that several stages share.

Inputs and outputs have no default: their paths stand in dvc.yaml. `ParamsFile` defaults to params.yaml and `Device`
to auto where a stage's `main` says so.
"""

from pathlib import Path
from typing import Annotated

import typer

ParamsFile = Annotated[Path, typer.Option("--params", help="YAML file of the parameters.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Threads or processes; 0: one per CPU core.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]

Tables = Annotated[Path, typer.Option("--tables", help="Folder of the data set's tables.")]
Truth = Annotated[Path, typer.Option("--truth", help="Folder of the human pixel masks (ground truth).")]
Masks = Annotated[Path, typer.Option("--masks", help="Folder of the pseudo-masks.")]
Model = Annotated[Path, typer.Option("--model", help="Folder of one trained student, or of an exported one.")]
Student = Annotated[Path, typer.Option("--model", help="Folder of one trained student.")]
Embedded = Annotated[Path, typer.Option("--embedded", help="Folder of the embedded teacher.")]
Cache = Annotated[Path, typer.Option("--cache", help="Folder to keep downloads in.")]
Metrics = Annotated[Path, typer.Option("--metrics", help="JSON file for the metrics.")]
