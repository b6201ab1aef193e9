"""Put the teacher's and the backbone's weights in place: by name, as safetensors with their configuration.

    python -m stages.weights --teacher data/weights/teacher --backbone data/weights/backbone

The embedded networks need no download. Official ones are fetched once into a cache outside the project and trusted
only by their SHA-256; no pickle is opened before it has been verified.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.checkpoints.backbone import install_backbone
from stages.checkpoints.config import WeightsParams
from stages.checkpoints.teacher import install_teacher
from stages.common.errors import run
from stages.common.params import Section, load_params


class Params(Section):
    weights: WeightsParams


def main(
    embedded: Annotated[Path, typer.Option(help="Folder of the embedded networks.")] = Path("data/weights/embedded"),
    teacher: Annotated[Path, typer.Option(help="Folder for the teacher.")] = Path("data/weights/teacher"),
    backbone: Annotated[Path, typer.Option(help="Folder for the backbone.")] = Path("data/weights/backbone"),
    cache: Annotated[Path, typer.Option(help="Where downloads are kept.")] = Path("~/.cache/boxes2pixels"),
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    """Write both networks."""
    values = load_params(Params, params).weights
    install_teacher(values.teacher, embedded / "teacher", cache.expanduser(), teacher)
    install_backbone(values.backbone, embedded / "backbone", cache.expanduser(), backbone)


if __name__ == "__main__":
    run(main)
