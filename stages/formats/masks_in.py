"""A folder of index PNGs, as any editor of images saves them: 0 = background, class id + 1, 255 = unknown."""

from collections.abc import Iterator
from pathlib import Path

from stages.data.root_files import Unreadable, read_file, visible_files
from stages.formats.correction import Correction, KnownImages, Refused, UnknownImage
from stages.ingestion.truth import BadMask, parse_mask

SUFFIX = ".png"


def read_masks(folder: Path, known: KnownImages, class_count: int) -> Iterator[Correction | Refused]:
    """The masks in and below `folder`, by name: `IMAGE.png`, the image's suffix left out or kept."""
    for path in sorted(path for path in visible_files(folder, lambda link: None) if path.suffix.lower() == SUFFIX):
        name = path.relative_to(folder).as_posix()[: -len(SUFFIX)]
        try:
            row = known.find(name)
            size_hw = row["height"], row["width"]
            labels, _ = parse_mask(read_file(folder, path.relative_to(folder).as_posix()), size_hw, class_count)
        except (UnknownImage, Unreadable, BadMask) as error:
            yield Refused(name, str(error), str(path))
            continue
        yield Correction(row["path"], None, size_hw, labels, str(path))
