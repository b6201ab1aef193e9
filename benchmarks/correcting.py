"""Time and memory of `stages.review` and of `stages.accept`, against the number of images.

    python -m benchmarks.correcting 2000 13000 --out correcting

Images and tiny networks are those of benchmarks/growth.py. `stages.review` writes the first 100 images, then 1,000 in
each format; `stages.accept` takes each thousand back, and compares it with label maps made from other candidates.
Writes OUT.md. Peak memory is that of the command's own process.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from benchmarks.growth import measured, write_project
from benchmarks.markdown import table
from benchmarks.pipeline_copy import command, environment
from stages.reviewing.handover import Tool

FIRST, CORRECTED = 100, 1000


def write_masks(home: Path) -> None:
    """Tables and pseudo-masks of the project `home`, and other pseudo-masks in `before`."""
    for stage in ("ingest", "trust"):
        measured(command(stage), home, environment(home))
    params = YAML().load(home / "params.yaml")
    for candidate, folder in (("single", "before"), ("refined", "masks")):
        params["rasterize"]["candidate"] = candidate
        YAML().dump(params, home / "params.yaml")
        measured(command("rasterize"), home, environment(home))
        (home / "data/masks").rename(home / folder)


def submit(file: Path) -> None:
    """Turn the predictions of Label Studio's tasks into what somebody submitted."""
    tasks = json.loads(file.read_bytes())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    file.write_text(json.dumps(tasks))


def grown(home: Path, count: int, tools: list[Tool]) -> list[tuple]:
    """Rows of the table for one number of images."""
    write_project(home, count)
    write_masks(home)
    rows = []

    def call(name: str, stage: str, masks: str, *words: object) -> None:
        words = (sys.executable, "-m", f"stages.{stage}", *words, "--masks", masks)
        rows.append((name, f"{count:,}", *measured([*map(str, words)], home, environment(home)).values()))
        typer.echo(rows[-1], err=True)

    for tool, first in ((Tool.masks, FIRST), *((tool, CORRECTED) for tool in tools)):
        out = home / f"first_{first}_{tool}"
        name = f"review --format {tool} --first {first}"
        call(name, "review", "masks", "--out", out, "--format", tool, "--first", first, "--model", "none")
        if tool is Tool.label_studio:
            submit(out / "label_studio.json")
        if first == CORRECTED:
            call(f"accept, {first:,} of {tool}", "accept", "before", out, "--out", f"accepted_{tool}")
    return rows


def main(
    counts: Annotated[list[int], typer.Argument(help="Numbers of images.")],
    tools: Annotated[list[Tool], typer.Option("--tool", help="Whose formats are taken back.")] = tuple(Tool),
    out: Annotated[Path, typer.Option(help="Name of the table, without suffix.")] = Path("correcting"),
) -> None:
    """Measure each number of images in a temporary folder."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            rows += grown(Path(folder) / "project", count, tools)
        text = "\n".join(table(("command", "images", "s", "CPU s", "peak MB"), rows))
        out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
