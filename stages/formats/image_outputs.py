"""Images in shards, predicted into their own files: the record of an image is its checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from stages.data.decoding import BadImage
from stages.engine.shard_jobs import Failure, Job, Tick
from stages.formats.inputs import Source, file_in, read
from stages.formats.measured_defects import record_of
from stages.formats.outputs import read_record, record_json, remove_outputs, write_output
from stages.formats.writers import write_files
from stages.runtime.network import Network, OperatingPoint, open_network

SHARD_IMAGES = 64

SOURCES = pa.schema([("path", pa.binary()), ("file", pa.binary()), ("name", pa.binary()), ("known", pa.bool_())])
"""Images to predict; `known`: there is a record of this model, and only files are missing. Bytes, because names need
not be UTF-8."""


@dataclass(frozen=True)
class Predict:
    """See `engine.shard_jobs.Work`. `folders`: the subfolders of `out` that get a file per image; `network`: that of
    `model`, for this process."""

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
            if self.force:  # files of formats not asked for now are of the old model, and would count as done later
                remove_outputs(source.name, self.out)
            write_output(path, record_json(record), self.force)
        write_files(record, image, self.out, self.folders, self.force)


def jobs_of(sources: Sequence[Source], known: set[str]) -> Iterator[Job]:
    """`known`: names of the images that have a record already."""
    for start in range(0, len(sources), SHARD_IMAGES):
        some = sources[start : start + SHARD_IMAGES]
        texts = [
            [str(text).encode("utf-8", "surrogateescape") for text in column] for column in zip(*some, strict=True)
        ]
        table = pa.table([*texts, [one.name in known for one in some]], schema=SOURCES)
        yield Job("images", start // SHARD_IMAGES, table)
