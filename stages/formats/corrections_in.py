"""Read corrections in any format, which is recognised by what a file, a folder or a ZIP archive holds."""

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from stages.common.errors import UserError
from stages.data.root_files import MAX_BYTES, Unreadable, read_file, visible_files
from stages.formats.coco import read_coco
from stages.formats.correction import (
    MALFORMED,
    BadDrawing,
    Correction,
    Drawing,
    KnownImages,
    Refused,
    check_size,
    malformed,
    values_of,
)
from stages.formats.cvat import read_cvat
from stages.formats.label_studio import read_label_studio
from stages.formats.yolo import NOT_LABELS, names_of, read_yolo
from stages.ingestion.file_names import is_hidden
from stages.ingestion.pixel_truth import BadMask, own_format, parse_mask

ALLOWED = "CVAT for images (XML), Label Studio (JSON), COCO (JSON), YOLO polygons (TXT) or index PNGs"

DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""Errors that are raised where a ZIP archive is damaged, encrypted, or packed by an unknown method."""


def read_corrections(path: Path, known: KnownImages, names: Sequence[str]) -> Iterator[Correction | Refused]:
    """The label maps in `path`, one image after another; what does not fit an image of `known` is refused.

    `names`: of the data set's classes. Raises UserError where `path` as a whole holds nothing that can be read.
    """
    seen = set()
    for source, drawing in _drawings(_Bundle(path), list(names)):
        if isinstance(drawing, Refused):
            yield drawing
            continue
        try:
            row = known.find(drawing.name)
            size_hw = row["height"], row["width"]
            if drawing.size_hw is not None:
                check_size(drawing.size_hw, size_hw)
            if row["path"] in seen:
                raise BadDrawing(f"a second one of {row['path']}")
            labels = drawing.draw(size_hw)
        except (BadDrawing, BadMask) as error:
            yield Refused(drawing.name, str(error), source)
        except MALFORMED as error:
            yield malformed(drawing.name, error, source)
        else:
            seen.add(row["path"])
            yield Correction(row["path"], drawing.sha256, size_hw, labels, source, drawing.exported_at, drawing.holes)


class _Bundle:
    """The files in a folder or a ZIP archive, hidden ones left out, or one file, which may be a link.

    `names`: with `/`, sorted. Raises UserError for an archive that cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._archive = path, None
        if path.is_dir():
            self._root = path
            self.names = sorted(file.relative_to(path).as_posix() for file in visible_files(path, lambda link: None))
        elif zipfile.is_zipfile(path):
            try:
                self._archive = zipfile.ZipFile(path)
            except DAMAGED as error:
                raise UserError(f"{path}: not a readable ZIP archive ({error})") from None
            names = self._archive.namelist()
            # macOS adds a folder __MACOSX
            self.names = sorted(
                name
                for name in names
                if not (name.endswith("/") or is_hidden(name) or "__MACOSX" in name.split("/")[:-1])
            )
        else:
            self._root, self.names = path.parent, [path.name]

    def ending(self, suffix: str) -> list[str]:
        """The names with this suffix, in upper or lower case."""
        return [name for name in self.names if name.lower().endswith(suffix)]

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises UserError where it cannot be read or has more than MAX_BYTES."""
        try:
            data = self._stored(name) if self._archive is None else self._unpacked(name)
        except (Unreadable, *DAMAGED) as error:
            raise UserError(f"{self.source(name)}: {str(error) or 'ends too early'}") from None
        if data is None:
            raise UserError(f"{self.source(name)}: does not exist")
        return data

    def source(self, name: str) -> str:
        """How messages name a file."""
        return f"{self.path}: {name}" if self._archive else str(self._root / name)

    def _stored(self, name: str) -> bytes | None:
        real = self.path.resolve()
        return read_file(real, name) if real.is_dir() else read_file(real.parent, real.name)

    def _unpacked(self, name: str) -> bytes:
        with self._archive.open(name) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Unreadable(f"has more than {MAX_BYTES:,} bytes")
        return data


def _drawings(bundle: _Bundle, names: list[str]) -> Iterator[tuple[str, Drawing | Refused]]:
    """The file and the drawing of each image, in the first format of ALLOWED that the bundle holds.

    Raises UserError where there is none, or where a file is not readable.
    """
    values = values_of(names)
    if annotations := [name for name in bundle.ending(".xml") if _is_cvat(bundle.read(name))]:
        for name in annotations:
            yield from ((bundle.source(name), one) for one in read_cvat(bundle.read(name), values, bundle.source(name)))
    elif trees := [tree for name in bundle.ending(".json") if (tree := _tree(bundle, name, values))]:
        for source, found in trees:
            try:
                yield from ((source, one) for one in found)
            except BadDrawing as error:
                raise UserError(f"{source}: {error}") from None
            except MALFORMED as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{source}: not a readable file of annotations ({reason})") from None
    elif labels := [name for name in bundle.ending(".txt") if PurePosixPath(name).name not in NOT_LABELS]:
        lists = [name for name in bundle.names if PurePosixPath(name).name in ("data.yaml", "classes.txt")]
        theirs = names_of(bundle.source(lists[0]), bundle.read(lists[0])) if lists else []
        for name in labels:
            yield bundle.source(name), read_yolo(name, bundle.read(name), theirs or list(values), values)
    elif pngs := bundle.ending(".png"):
        for name in [name for name in pngs if re.search("(^|/)masks/", name)] or pngs:
            yield bundle.source(name), _index_png(bundle, name, len(names))
    else:
        raise UserError(f"{bundle.path}: holds no corrections; allowed are {ALLOWED}")


def _is_cvat(data: bytes) -> bool:
    # UTF-16 has a zero byte with each letter of ASCII
    return b"<annotations" in data[:8192].replace(b"\0", b"")


def _tree(bundle: _Bundle, name: str, values: Mapping[str, int]) -> tuple[str, Iterator[Drawing | Refused]] | None:
    """A JSON file of annotations and its images, not read yet; None for other JSON. Raises UserError."""
    source = bundle.source(name)
    try:
        tree = json.loads(bundle.read(name))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not readable JSON ({error})") from None
    if isinstance(tree, list) and any(isinstance(task, dict) and "data" in task for task in tree):
        return source, read_label_studio(tree, values, source)
    if isinstance(tree, dict) and isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list):
        return source, read_coco(tree, values)
    return None


def _index_png(bundle: _Bundle, name: str, class_count: int) -> Drawing:
    """An index PNG called IMAGE.png, as any image editor saves it: 0 = background, class id + 1, 255 = unknown."""
    form = own_format(class_count)
    return Drawing(name[: -len(".png")], None, lambda size_hw: parse_mask(bundle.read(name), size_hw, form))
