"""The work of rasterize on shards: read their images and boxes from the tables, write their pseudo-masks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stages.common.errors import UserError
from stages.compute.device import device_of, make_deterministic
from stages.data.images import ImageError
from stages.data.tables import BOXES, IMAGES, Dataset, by_image, stream_tables, with_names, write_table
from stages.engine.shard_jobs import Failure, Job, Tick
from stages.masks.labelmap import mask_row
from stages.masks.shards import CANDIDATE_ROWS, CANDIDATES, LABEL_MAPS, MASKS
from stages.teacher.answer_store import Store
from stages.teacher.answers import Answers
from stages.teacher.config import RasterizeParams
from stages.teacher.loading import load_teacher
from stages.trusted.drawn_masks import read_trusted, trusted_rows, with_drawn

BOXES_AT_ONCE = 4096
"""Rows of the boxes table that are read together."""


@dataclass(frozen=True)
class Rasterize:
    """See `engine.shard_jobs.Work`. `answers`: folder of the teacher's cached answers."""

    staging: Path
    identity: str
    model: Path
    answers: Path
    source: Dataset
    params: RasterizeParams
    device: str

    def open(self) -> Callable[[Job, Path, Tick], list[Failure]]:
        """Load the teacher. The function writes a shard's candidates and label maps, unless one of its images fails."""
        make_deterministic()
        teacher = load_teacher(self.model, device_of(self.device))
        answers = Answers(teacher, Store(self.answers, teacher, self.model, self.params), self.source, self.params)

        def shard(job: Job, folder: Path, tick: Tick) -> list[Failure]:
            boxes = by_image(job.boxes.to_pylist())
            images, masks, candidates, failures = job.images.to_pylist(), [], [], []
            drawn = {image["image_id"] for image in images if image["drawn"] is not None}
            asked = {key: [row for row in own if row["mask"] is None] for key, own in boxes.items() if key not in drawn}
            for image, found in answers.of(images, asked):
                if isinstance(found, ImageError):
                    failures.append(Failure(image["image_id"], str(found)))
                else:
                    mask, rows = self._rows(image, boxes.get(image["image_id"], []), found)
                    masks.append(mask)
                    candidates += rows
                tick(1)
            names = self.source.names
            if not failures:
                write_table(folder / f"{CANDIDATE_ROWS}.parquet", with_names(CANDIDATES, names), candidates)
                write_table(folder / f"{LABEL_MAPS}.parquet", with_names(MASKS, names), masks)
            return failures

        return shard

    def _rows(self, image: dict, boxes: list[dict], found: list[dict]) -> tuple[dict, list[dict]]:
        """An image's row of the masks table, and its rows of the candidates table. `found`: the teacher's answer."""
        if image["drawn"] is not None:
            return trusted_rows(image, image["drawn"])
        rows = with_drawn(boxes, found, (image["height"], image["width"]), self.params.candidate)
        by_hand = {row["box_id"] for row in boxes if row["mask"] is not None}
        return mask_row(image, rows, self.params.clip_margin, by_hand), rows


def jobs_of(tables: Path, trusted: Path | None, split: str, size: int) -> Iterator[Job]:
    """The jobs of a split, of `size` images each: their rows of the images table, with a column `drawn` (label map as
    PNG of a trusted image, else null), and of the boxes table. Both are read as streams: memory does not grow.

    Raises UserError where boxes are not in the order of their images.
    """
    drawn = {} if trusted is None else read_trusted(trusted / f"{split}.parquet")
    path = tables / split / "boxes.parquet"
    stream, ahead = stream_tables(path, BOXES, "ingest", BOXES_AT_ONCE), BOXES.empty_table()
    index = -1
    for index, images in enumerate(stream_tables(tables / split / "images.parquet", IMAGES, "ingest", size)):
        ours, parts = images["image_id"].combine_chunks(), []
        while len(ahead) or (ahead := next(stream, None) or BOXES.empty_table()):
            end = pc.index(pc.is_in(ahead["image_id"], value_set=ours), False).as_py()
            parts.append(ahead[: end if end >= 0 else len(ahead)])
            ahead = ahead[len(parts[-1]) :]
            if len(ahead):
                break
        boxes = pa.concat_tables([BOXES.empty_table(), *parts])
        images = _with_drawn_column(images, drawn)
        yield Job(split, index, images, boxes)
    if len(ahead) or (ahead := next(stream, None)):
        where = f"{path}: box of {ahead['image_id'][0]}"
        raise UserError(f"{where}, which images.parquet lacks or has elsewhere; run the ingest stage")
    if index < 0:
        images, boxes = _with_drawn_column(IMAGES.empty_table(), drawn), BOXES.empty_table()
        yield Job(split, 0, images, boxes)


def _with_drawn_column(images: pa.Table, drawn: dict[str, bytes]) -> pa.Table:
    pngs = [drawn.get(image_id) for image_id in images["image_id"].to_pylist()]
    return images.append_column("drawn", pa.array(pngs, pa.binary()))
