"""The images of a split with what is doubtful in their pseudo-masks, and the student that helps to find it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.common.errors import UserError
from stages.data.images import read_image
from stages.data.tables import IGNORE, Dataset, by_image, decode_label_map
from stages.masks import rle
from stages.masks.shards import read_shard, shard_indices
from stages.reviewing.doubts import COLUMNS, doubts, in_words
from stages.reviewing.ranking import Entry
from stages.runtime.network import Network, open_network


def asked(folder: Path, source: Dataset, device: str) -> Network:
    """The student in `folder`. Raises UserError where it does not know the data set's classes."""
    network = open_network(folder, device)
    if network.names != list(source.names):
        raise UserError(f"{folder}: trained on classes {network.names}, the data set has {list(source.names)}")
    return network


def trained(folder: Path, source: Dataset, device: str) -> Network | None:
    """The same; None, without an error, where there is no student or one of other classes. Says which on stderr."""
    network = open_network(folder, device) if folder.is_dir() else None
    if network is None:
        note = f"{folder}: no student yet, so SAM alone is asked"
    elif network.names != list(source.names):
        note, network = f"{folder}: a student of other classes, so SAM alone is asked", None
    else:
        note = f"{folder}: is asked too; with --model none SAM alone is"
    print(note, file=sys.stderr)
    return network


def entries_of(folder: Path, source: Dataset, network: Network | None, bar: tqdm) -> Iterator[Entry]:
    """The images of one split with their doubts, shard by shard."""
    for index in shard_indices(folder):
        images, candidates = read_shard(folder, index)
        rows = candidates.select(COLUMNS).filter(candidates["chosen"]).to_pylist()
        boxes = by_image(rows)
        for image in images.to_pylist():
            own, labels, seen = boxes.get(image["image_id"], []), None, None
            checked = drawn_by_hand(image)
            if network is not None and not checked:
                labels = decode_label_map(image["label_map"]["bytes"])
                seen = network.predict(read_image(source, image))
            found = doubts(image, own, source.names, labels, seen)
            score = sum(doubt.wrong_px for doubt in found)
            about = (image[key] for key in ("image_id", "path", "sha256"))
            bar.update()
            yield Entry(*about, folder.name, len(own), score, in_words(found), checked)


def drawn_by_hand(image: dict) -> bool:
    """Whether a person drew all labels of a row of the masks table."""
    if (drawn := image["trusted"]) is None:
        return False
    labels = decode_label_map(image["label_map"]["bytes"])
    return np.array_equal(rle.decode(drawn, labels.shape), labels != IGNORE)
