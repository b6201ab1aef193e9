"""The output folder of predict: the files of each image. An image with a record is not predicted again.

No file is overwritten without --force.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.common.files import new_file
from stages.common.params import read_sealed, sealed
from stages.data.decoding import BadImage
from stages.data.root_files import Unreadable
from stages.data.tables import encode_label_map
from stages.engine.shard_jobs import Failure, Job, Tick
from stages.formats import yolo
from stages.formats.inputs import SUFFIX_IN, Source, file_in, open_input, read
from stages.formats.measured_defects import Record, record_of
from stages.formats.overlay_jpeg import overlay
from stages.runtime.network import Network, OperatingPoint, open_network

CHOICE = "use another --out, or --force to overwrite it"
REWRITE = f"remove it and run again to write it from the records, {CHOICE}"

SHARD_IMAGES = 64

SOURCES = pa.schema([("path", pa.binary()), ("file", pa.binary()), ("name", pa.binary()), ("known", pa.bool_())])
"""Images to predict; `known`: a record of this model exists, and only other files are missing. Paths are bytes, because
they need not be UTF-8."""


@dataclass(frozen=True)
class Predict:
    """See `engine.shard_jobs.Work`. `folders`: the subfolders of `out` that get a file per image; `network`: the loaded
    `model`, for use in this process."""

    identity: str
    model: Path
    device: str
    point: OperatingPoint
    out: Path
    folders: tuple[str, ...]
    force: bool
    network: Network | None = None
    staging: None = None

    def __reduce__(self) -> tuple:
        """Without the network: another process opens its own."""
        return Predict, (self.identity, self.model, self.device, self.point, self.out, self.folders, self.force)

    def open(self) -> Callable[[Job, None, Tick], list[Failure]]:
        """Load the network."""
        return partial(self._shard, self.network or open_network(self.model, self.device, self.point))

    def _shard(self, network: Network, job: Job, _folder: None, tick: Tick) -> list[Failure]:
        failures = []
        for row in job.images.to_pylist():
            path, file, name = (row[key].decode("utf-8", "surrogateescape") for key in ("path", "file", "name"))
            try:
                self._predict(network, Source(Path(path), file, name), row["known"])
            except BadImage as error:
                if self.force:  # they show what the file was before
                    remove_outputs(name, self.out)
                failures.append(Failure(file, str(error)))
            tick(1)
        return failures

    def _predict(self, network: Network, source: Source, known: bool) -> None:
        sha256, image = read(source, network.white_level)
        path = file_in(self.out / "records", source.name)
        if known:
            record = read_record(path)
        else:
            record = record_of(network, source, sha256, image)
            if self.force:  # old files of formats not asked for now would count as done in a later run
                remove_outputs(source.name, self.out)
            write_output(path, record_json(record), self.force)
        write_files(record, image, self.out, self.folders, self.force)


def jobs_of(sources: Sequence[Source], known: set[str]) -> Iterator[Job]:
    """Jobs of SHARD_IMAGES images each, with the columns of SOURCES. `known`: names of images that have a record."""
    for start in range(0, len(sources), SHARD_IMAGES):
        some = sources[start : start + SHARD_IMAGES]
        texts = [
            [str(text).encode("utf-8", "surrogateescape") for text in column] for column in zip(*some, strict=True)
        ]
        table = pa.table([*texts, [one.name in known for one in some]], schema=SOURCES)
        yield Job("images", start // SHARD_IMAGES, table)


def existing_records(
    sources: Iterable[Source], out: Path, folders: Iterable[str], model: str, force: bool
) -> dict[str, Record]:
    """Records in `out`, by name, of the images that `model` has already predicted and that have not changed since.

    `folders`: the subfolders of `out` that this command writes. Raises UserError, before any work, where a record is
    damaged or of another model or image, or an output exists without one; with `force` these images are left out.
    """
    found = {}
    for source in sources:
        path = file_in(out / "records", source.name)
        if path.is_file():
            try:
                record = read_record(path)
            except UserError:
                if not force:
                    raise
                continue
            if record.model == model and record.sha256 == _sha256(source.path):
                # the suffix of the image may have changed
                found[source.name] = record.model_copy(update={"file": source.file})
            elif not force:
                other = "model" if record.model != model else "image"
                raise UserError(f"{path}: made from another {other}; {CHOICE}")
        elif not force:
            for folder in folders:
                if (output := file_in(out / folder, source.name)).exists():
                    raise UserError(f"{output}: exists, but there is no record of having written it; {CHOICE}")
    return found


def write_files(record: Record, image: np.ndarray, out: Path, folders: Iterable[str], force: bool) -> None:
    """Write the image's own files. Existing ones may have been corrected by hand: they stay, unless `force` is set."""
    makers = {
        "masks": lambda: encode_label_map(record.labels()),
        "overlays": lambda: overlay(image, record),
        "labels": lambda: yolo.lines(record).encode(),
    }
    for folder in folders:
        path = file_in(out / folder, record.name)
        if force or not path.is_file():
            write_output(path, makers[folder](), force)


def remove_outputs(name: str, out: Path) -> None:
    """Remove all files of one image."""
    for folder in SUFFIX_IN:
        file_in(out / folder, name).unlink(missing_ok=True)


def write_output(path: Path, data: bytes, force: bool, choice: str = CHOICE) -> None:
    """Write `data`, unless it is there already. Raises UserError where the file differs and `force` is not set."""
    if path.exists():
        if path.read_bytes() == data:
            return
        if not force:
            raise UserError(f"{path}: exists and would change; {choice}")
    with new_file(path) as part:
        part.write_bytes(data)


def read_record(path: Path) -> Record:
    """The record in a file. Raises UserError where there is none."""
    try:
        return Record.model_validate_json(json.dumps(read_sealed(path, "remove it")))
    except ValidationError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable record ({reason}); remove it") from None


def record_json(record: Record) -> bytes:
    """A record as its file holds it."""
    return (json.dumps(sealed(record.model_dump(mode="json")), indent=1) + "\n").encode()


def _sha256(path: Path) -> str | None:
    try:
        with open_input(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, Unreadable):
        return None
