"""Lay a COCO data set out as the pipeline reads one, in a folder of its own; the data set itself is not modified.

    python -m stages.from_coco --train train.json --val val.json --test test.json --images images --out set
    dvc exp run -S data.root=set -S data.trusted=set/trusted

Every annotation becomes a box, except crowds. Images with segmentations (polygons or run lengths, with holes and parts)
also get a mask, an index PNG: in train and val below OUT/trusted, for use as trusted masks or not; in test as pixel
truth, there also for images without a defect. So do images of train and val that have crowds. In it, pixels of crowds
and of boxes without segmentation are unknown. Images are linked where the file system can, else copied.

Exit status: 0 all done, 1 an error that the message explains, 3 done except for what is refused, one line each.
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import SOME_LEFT_OUT, UserError, printable, run
from stages.common.files import new_folder
from stages.common.progress import progress
from stages.formats.coco_set import CocoSplit
from stages.formats.yolo import data_yaml


def main(
    train: Annotated[Path, typer.Option(help="Instances file of the train split.")],
    val: Annotated[Path, typer.Option(help="Instances file of the val split.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    test: Annotated[Path | None, typer.Option(help="Instances file of the test split.")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="Folders of the images; default: beside each file.")] = None,
) -> None:
    """Write data.yaml, images, labels and masks of a COCO data set."""
    if out.exists():
        raise UserError(f"{out}: exists; use another --out")
    for folder in images or []:
        if not folder.is_dir():
            raise UserError(f"--images {folder}: no such folder")
    files = {"train": train, "val": val} | ({} if test is None else {"test": test})
    splits = [CocoSplit(split, file, images or [file.parent]) for split, file in files.items()]
    names, refused = splits[0].names, []
    with new_folder(out) as part:
        for split in splits:
            for image in progress(split.images, f"from_coco {split.split}", "images"):
                if reason := split.write(part, image, names):
                    refused.append(f"refused {image.get('file_name')} ({split.file}): {reason}")
        (part / "data.yaml").write_bytes(data_yaml(names, {split: f"images/{split}" for split in files}))
        for line in refused:
            typer.echo(printable(line), err=True)
        if lost := [str(split.file) for split in splits if not split.taken["images"]]:
            raise UserError(f"{out}: not written: all images of {' and '.join(lost)} are refused")
    for split in splits:
        typer.echo(f"{split.split}: {', '.join(f'{number} {what}' for what, number in split.taken.items())}")
    settings = [f"data.root={out}"] + [f"data.trusted={out / 'trusted'}"] * (out / "trusted").exists()
    typer.echo(f"to train on them: dvc exp run {' '.join(f'-S {shlex.quote(setting)}' for setting in settings)}")
    if refused:
        raise typer.Exit(SOME_LEFT_OUT)


if __name__ == "__main__":
    run(main)
