"""Run the ingest stage on a data set and read its outputs, in the folder `out` beside the data set."""

import json
from pathlib import Path

from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.data.tables import IMAGES, SPLITS, read_table
from stages.ingest import main


def settings_of(**changes: object) -> dict:
    """Section ingest with `changes`."""
    settings = {
        "duplicates": "error",
        "near_duplicates": 40,
        "max_bad_share": 0.05,
        "polygons": "box",
        "confidence": None,
        "white_level": None,
    } | changes
    return settings | {"split": {"group": None, "val": 0.15, "test": 0.15, "seed": 0} | changes.get("split", {})}


def ingest(root: Path, out: Path | None = None, strict: bool = False, workers: int = 2, **changes: object) -> dict:
    """Run the stage into `out`, with `changes` in section ingest; returns its metrics."""
    out = out or root.parent / "out"
    out.mkdir(exist_ok=True)
    YAML().dump({"data": {"root": str(root)}, "ingest": settings_of(**changes)}, out / "params.yaml")
    main(out / "tables", out / "truth", out / "ingest.json", out / "params.yaml", strict=strict, workers=workers)
    return json.loads((out / "ingest.json").read_text())


def ingest_or_error(root: Path, **options: object) -> dict | str:
    """Metrics of the stage, or its error message."""
    try:
        return ingest(root, **options)
    except UserError as error:
        return str(error)


def images_by_id(root: Path) -> dict[str, dict]:
    """Rows of the images tables of all splits."""
    tables = [read_table(root.parent / f"out/tables/{split}/images.parquet", IMAGES).to_pylist() for split in SPLITS]
    return {row["image_id"]: row for table in tables for row in table}
