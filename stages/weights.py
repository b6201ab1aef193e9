"""Install the weights of the teacher and of the backbone: by name, as safetensors with their configuration.

    python -m stages.weights --embedded data/weights/embedded/teacher --teacher data/weights/teacher \\
        --backbone data/weights/backbone

A backbone that does not take the input size `view.size_px` is refused here, before any mask is made.

The defaults need no download. Others are downloaded once into a cache outside the project (for a user without a home
folder: in the work folder). An official checkpoint that is a pickle is opened only after its SHA-256 is verified.
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.checkpoints.config import WeightsParams
from stages.checkpoints.fetch import cache_folder
from stages.checkpoints.sam_teacher import install_teacher
from stages.checkpoints.timm_backbone import install_backbone
from stages.common.errors import run
from stages.common.options import Cache, Embedded, ParamsFile
from stages.common.params import Section, load_params, write_digests
from stages.student.backbone import load_backbone
from stages.student.config import ViewParams


class Params(Section):
    weights: WeightsParams
    view: ViewParams


def main(
    embedded: Embedded,
    teacher: Annotated[Path, typer.Option(help="Folder to write the teacher to.")],
    backbone: Annotated[Path, typer.Option(help="Folder to write the backbone to.")],
    cache: Cache = Path("~/.cache/boxes2pixels"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the weights of the teacher and of the backbone."""
    values = load_params(Params, params)
    install_teacher(values.weights.teacher, embedded, cache_folder(cache), teacher)
    install_backbone(values.weights.backbone, cache_folder(cache), backbone)
    for folder in (teacher, backbone):
        write_digests(folder)
    load_backbone(backbone, values.view.size_px)


if __name__ == "__main__":
    run(main)
