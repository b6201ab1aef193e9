"""Hand the pseudo-masks most worth checking to an annotation tool; `stages.accept` takes the corrections back.

    python -m stages.review --out DIR --format cvat --first 100

No stage depends on it. DIR gets the images, their pseudo-masks, and `review.csv`, which says why each is in the list.
Test images are never in it: what is trained on must not score. With `--model` a student's opinion counts too: where it
differs from SAM, and what it is sure of outside of all boxes. Memory does not grow with the size of the masks.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stages.common.errors import UserError, run
from stages.common.files import new_folder
from stages.common.options import Device, Masks, ParamsFile, Tables
from stages.common.params import Section, load_params
from stages.common.progress import progress
from stages.data.images import read_image
from stages.data.tables import IGNORE, Dataset, decode_label_map, read_dataset
from stages.ingestion.config import IngestParams
from stages.masks import rle
from stages.masks.shards import read_shard, shard_indices, stream_masks
from stages.reviewing.doubts import COLUMNS, doubts, in_words
from stages.reviewing.handover import Tool, hash_of, reviewed, sources_of, write_for, write_table
from stages.reviewing.ranking import Entry, ranked
from stages.runtime.network import Network, open_network
from stages.student.tiling import predict

SPLITS = ("train", "val")


class Params(Section):
    ingest: IngestParams


def main(
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    format: Annotated[Tool, typer.Option(help="What the corrections are made with.")],
    first: Annotated[int, typer.Option(min=1, help="Number of images.")] = 100,
    model: Annotated[Path | None, typer.Option(help="Folder of a student, whose opinion counts too.")] = None,
    tables: Tables = Path("data/tables"),
    masks: Masks = Path("data/masks"),
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
) -> None:
    """Write the images most worth checking, with their pseudo-masks and the reasons."""
    if out.exists():
        raise UserError(f"{out}: exists, and may hold corrections; use another --out")
    max_bits = load_params(Params, params).ingest.near_duplicates
    source = read_dataset(tables / "dataset.json")
    network = None if model is None else open_network(model, device)
    if network and network.names != list(source.names):
        raise UserError(f"{model}: trained on classes {network.names}, the data set has {list(source.names)}")
    entries = [entry for split in SPLITS for entry in entries_of(masks / split, source, network)]
    chosen = ranked(entries, first, lambda entry: hash_of(source, entry), max_bits)
    sources = sources_of([one.entry.path for one in chosen])
    rows = (row for split in SPLITS for row in stream_masks(masks / split))
    with new_folder(out) as part:
        records = reviewed(rows, chosen, sources, source, part / "images")
        filled = write_for(format, records, list(source.names), part, out.name)
        write_table(part / "review.csv", chosen, sources)
    print(f"{len(chosen)} of {len(entries)} images: {out}; {out / 'review.csv'} says why")
    if filled:
        print(f"{filled} masks have holes; polygons cannot hold them, so they are filled there")


def entries_of(folder: Path, source: Dataset, network: Network | None) -> Iterator[Entry]:
    """The images of one split with their doubts, shard by shard."""
    for index in progress(shard_indices(folder), f"doubts {folder.name}", "shards"):
        images, candidates = read_shard(folder, index)
        rows = candidates.select(COLUMNS).filter(candidates["chosen"]).to_pylist()
        boxes = {image_id: list(group) for image_id, group in groupby(rows, lambda row: row["image_id"])}
        for image in images.to_pylist():
            own, labels, seen = boxes.get(image["image_id"], []), None, None
            checked = drawn_by_hand(image)
            if network is not None and not checked:
                labels = decode_label_map(image["label_map"]["bytes"])
                seen = predict(network.run, read_image(source, image), network.view, network.decision)
            found = doubts(image, own, source.names, labels, seen)
            score = sum(doubt.wrong_px for doubt in found)
            about = (image[key] for key in ("image_id", "path", "sha256"))
            yield Entry(*about, folder.name, len(own), score, in_words(found), checked)


def drawn_by_hand(image: dict) -> bool:
    """Whether a person drew all labels of a row of the masks table."""
    if (drawn := image["trusted"]) is None:
        return False
    labels = decode_label_map(image["label_map"]["bytes"])
    return np.array_equal(rle.decode(drawn, labels.shape), labels != IGNORE)


def cli() -> None:
    """The console command."""
    run(main)


if __name__ == "__main__":
    cli()
