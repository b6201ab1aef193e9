"""One image with everything that belongs to it, read and checked."""

import stat
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import UserError
from stages.data.images import BadImage, inside, probe_image
from stages.data.tables import encode_label_map
from stages.ingestion.duplicates import perceptual_hash
from stages.ingestion.labels import ROUNDING, parse_labels
from stages.ingestion.layout import Photo, label_path, mask_path
from stages.ingestion.rejects import Reject
from stages.ingestion.truth import BadMask, parse_mask


@dataclass(frozen=True)
class Entry:
    """Rows for the tables. `image` is None when the image was rejected, `truth` when it has no usable mask;
    `truth_values` are the values in that mask, `look` the image's perceptual hash, if it has one."""

    image: dict | None
    boxes: list[dict]
    truth: dict | None
    rejects: list[Reject]
    truth_values: frozenset[int] = frozenset()
    look: bytes | None = None


MAX_BYTES = 1 << 30
"""Larger files are not read: nothing in a data set needs a gigabyte, and a sparse file can claim any size."""


class Unreadable(ValueError):
    """A file that is there, but cannot be read."""


def read_entry(root: Path, photo: Photo, class_count: int) -> Entry:
    """Read an image, its labels and its mask. Nothing bad raises: it is a reject."""
    try:
        if photo.problem:
            raise Unreadable(photo.problem)
        data = _read(root, photo.path)
        if data is None:
            raise Unreadable("image file not found")
        probe = probe_image(data)
        label_data = _read(root, label_path(photo.path))
    except (BadImage, Unreadable) as error:
        return Entry(None, [], None, [Reject(photo.path, None, "image", str(error), "image dropped")])
    image = {
        "image_id": photo.image_id,
        "split": photo.split,
        "path": photo.path,
        "sha256": probe.sha256,
        "exif_orientation": probe.exif_orientation,
        "height": probe.size_hw[0],
        "width": probe.size_hw[1],
        "label_status": "missing",
    }
    boxes, rejects = [], []
    if label_data is not None:
        boxes, rejects, image["label_status"] = _read_boxes(photo, label_data, probe.size_hw, class_count)
    truth, values = None, frozenset()
    try:
        mask_data = _read(root, mask_path(photo.path))
        if mask_data is not None:
            mask, values = parse_mask(mask_data, probe.size_hw, class_count)
            truth = {key: image[key] for key in ("image_id", "height", "width")}
            truth["mask_png"] = encode_label_map(mask)
    except (BadMask, Unreadable) as error:
        rejects.append(Reject(mask_path(photo.path), None, "mask", str(error), "mask dropped"))
    return Entry(image, boxes, truth, rejects, frozenset(values), perceptual_hash(probe.thumbnail))


def _read_boxes(
    photo: Photo, data: bytes, size_hw: tuple[int, int], class_count: int
) -> tuple[list[dict], list[Reject], str]:
    """Rows of the boxes table, rejects, and label status."""
    source, labels = label_path(photo.path), parse_labels(data, size_hw, class_count)
    boxes = [
        {
            "box_id": f"{photo.image_id}:{line}",
            "image_id": photo.image_id,
            "class_id": box.class_id,
            **dict(zip(("x1", "y1", "x2", "y2"), box.xyxy, strict=True)),
            "source": source,
            "line": line,
        }
        for line, box in labels.boxes
    ]
    rejects = [Reject(source, line, bad.kind, str(bad), "row dropped") for line, bad in labels.bad]
    rejects += [
        Reject(source, line, "clipped", f"box reaches {box.overhang:.2%} out of the image", "box clipped")
        for line, box in labels.boxes
        if box.overhang > ROUNDING
    ]
    return boxes, rejects, "labelled" if boxes or labels.bad else "empty"


def _read(root: Path, path: str | None) -> bytes | None:
    """Bytes of `path` below `root`; None where there is no such file. Raises Unreadable where it may not be read."""
    if path is None:
        return None
    try:
        target = inside(root, path)
        status = target.stat()
        # a pipe would be waited for, for ever
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"{path} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise Unreadable(f"{path} has {status.st_size:,} bytes, allowed are {MAX_BYTES:,}")
        return target.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror})") from None
    except UserError as error:
        # its own message would put this machine's path into the tables
        why = "leads out of the data root" if "leads out" in str(error) else "is not a usable path"
        raise Unreadable(f"{path} {why}") from None
