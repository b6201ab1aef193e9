"""Which masks that people drew may become trusted."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stages.common.errors import UserError
from stages.data.tables import IMAGES, SPLITS, read_dataset, read_table
from stages.formats.correction import Correction, KnownImages, Refused
from stages.formats.corrections_in import read_corrections
from stages.ingestion.counterparts import Counterparts, counterpart
from stages.ingestion.data_yaml import read_data_yaml


class Admission:
    """The images of a data set, and whether a label map may be trusted as that of one of them."""

    def __init__(self, tables: Path) -> None:
        rows = [row for split in SPLITS for row in read_table(tables / split / "images.parquet", IMAGES).to_pylist()]
        self.known = KnownImages(rows)
        self.row_of = {row["path"]: row for row in rows}
        self.tested = {row["sha256"] for row in rows if row["split"] == "test"}
        dataset = read_dataset(tables / "dataset.json")
        self.names, root = dataset.names, dataset.root
        self.truth = _truth_of(root, [row["path"] for row in rows]) if isinstance(root, Path) else set()

    def read(self, path: Path) -> Iterator[Correction | Refused]:
        """The label maps in `path`, in any format; Refused for those that fit no image or must not be trained on."""
        for found in read_corrections(path, self.known, self.names):
            if isinstance(found, Correction) and (reason := self._why_not(found)):
                found = Refused(found.path, reason, found.source)
            yield found

    def _why_not(self, found: Correction) -> str | None:
        row = self.row_of[found.path]
        if row["split"] == "test":
            return "is of a test image: a mask is for training or for scores, never for both"
        if row["sha256"] in self.tested:
            return "is of an image that has the bytes of a test image"
        if _file(Path(found.source)) in self.truth:
            return "is pixel truth of the data set: a mask is for training or for scores, never for both"
        if found.image_sha256 not in (None, row["sha256"]):
            return f"was drawn on other bytes: SHA-256 {found.image_sha256[:12]}…, the image has {row['sha256'][:12]}…"
        return None


def _file(path: Path) -> tuple[int, int] | None:
    """Device and inode, equal for all names and links of a file; None where there is no file, as in an archive."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _truth_of(root: Path, images: Sequence[str]) -> set[tuple[int, int]]:
    """`_file` of all masks that are pixel truth of the images, in `masks` or a masks_dir of the root's YAML files."""
    beside, folders = Counterparts(root), {"masks"}
    for config in (*root.glob("*.yaml"), *root.glob("*.yml")):
        with suppress(UserError):
            folders.add(str(read_data_yaml(config).get("masks_dir", "masks")))
    places = (counterpart(image, folder, ".png") for folder in folders for image in images)
    return {file for place in places if place and (file := _file(root / beside.actual(place))) is not None}


def described(refused: Refused) -> str:
    """One line for the terminal."""
    return f"refused {refused.name} ({refused.source}): {refused.reason}"
