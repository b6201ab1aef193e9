"""An image's id, and the paths of its label file and mask: by Ultralytics' naming rules, and as spelled on disk.

Names are compared in Unicode's form NFC (a Mac writes NFD), the suffix in any case, and a folder in any case where
there is only one: `Labels/ä.TXT` is the label file of `images/ä.jpg`, as on systems that ignore case.
"""

import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from stages.common.errors import UserError
from stages.data.root_files import inside

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Names of a folder above or below `images` that only repeats the split, and is left out of an id."""

OTHER_LABELS = (".json", ".xml")
"""Suffixes of other formats with one label file per image: LabelMe, Pascal VOC."""


def label_path(image: str) -> str:
    """Path of an image's label file: the last folder `images` becomes `labels`, the suffix .txt (Ultralytics)."""
    return counterpart(image, "labels", ".txt") or PurePosixPath(image).with_suffix(".txt").as_posix()


def counterpart(image: str, folder: str, suffix: str) -> str | None:
    """`image` with its last folder `images` replaced by `folder`, and `suffix`; None without such a folder."""
    parts = PurePosixPath(image).with_suffix(suffix).parts
    index = _images_folder(parts)
    return None if index is None else "/".join((*parts[:index], folder, *parts[index + 1 :]))


def image_id(split: str, image: str) -> str:
    """`<split>/<path without the last folder `images`, a folder beside it that names the split, and the suffix>`."""
    parts = PurePosixPath(normalize("NFC", image)).with_suffix("").parts
    index = _images_folder(parts)
    above, below = (parts[:index], parts[index + 1 :]) if index is not None else ((), parts)
    if len(below) > 1 and below[0] in SPLIT_FOLDERS[split]:
        below = below[1:]
    elif above and above[-1] in SPLIT_FOLDERS[split]:
        above = above[:-1]
    return "/".join((split, *above, *below))


def key_of(name: str) -> str:
    """The form in which file names are compared: Unicode NFC, with the suffix in lower case."""
    stem, suffix = posixpath.splitext(normalize("NFC", name))
    return stem + suffix.lower()


class Counterparts:
    """The label file and the mask of each image below `root`, as spelled on disk. Each folder is listed only once.

    `masks`: the folder that replaces `images` in the path of a mask.
    """

    def __init__(self, root: Path, masks: str = "masks") -> None:
        self.root = root
        self.masks = masks
        self.listed: dict[str, dict[str, str]] = {}

    def label(self, image: str) -> str:
        """The label file, or where it would be."""
        return self.actual(label_path(image))

    def mask(self, image: str) -> str | None:
        """The mask, a PNG, or where it would be; None without a folder `images`, as it would be the image's path."""
        path = counterpart(image, self.masks, ".png")
        return None if path is None else self.actual(path)

    def elsewhere(self, image: str) -> Iterator[str]:
        """Existing files of the image's name that may hold labels but are not read: beside it or in another format."""
        label = PurePosixPath(label_path(image))
        for path in (PurePosixPath(image), label):
            for suffix in (".txt", *OTHER_LABELS):
                place = path.with_suffix(suffix)
                if place != label and self.is_listed(found := self.actual(str(place))):
                    yield found

    def is_listed(self, path: str) -> bool:
        """Whether its folder has an entry of that name, even if it is a broken link."""
        folder, name = posixpath.split(path)
        return name in self._names(folder).values()

    def actual(self, plain: str) -> str:
        """`plain` as spelled on disk, unchanged if it is not there. Of several files with one key, the one to read."""
        folder, name = posixpath.split(plain)
        folder = self.folder(folder)
        return posixpath.join(folder, self._names(folder).get(key_of(name), name))

    def folder(self, plain: str) -> str:
        """A folder as spelled on disk: in another case where only one folder has that name, else unchanged."""
        above, name = posixpath.split(plain)
        if not name or self._names(plain):
            return plain
        above = self.folder(above)
        same = [found for found in self._names(above).values() if found.casefold() == name.casefold()]
        return posixpath.join(above, same[0] if len(same) == 1 and name not in same else name)

    def _names(self, folder: str) -> dict[str, str]:
        """Key (`key_of`) to name of the files in `folder`; of two names with one key, the name that equals the key."""
        if folder not in self.listed:
            try:
                names = [path.name for path in inside(self.root, folder).iterdir()]
            except (OSError, UserError):
                names = []
            found = {key_of(name): name for name in sorted(names)}
            self.listed[folder] = found | {name: name for name in names if key_of(name) == name}
        return self.listed[folder]


def _images_folder(parts: tuple[str, ...]) -> int | None:
    """Index of the last folder `images` among the parts of a path."""
    return max((index for index, part in enumerate(parts[:-1]) if part == "images"), default=None)
