"""One photograph with everything that belongs to it, read and checked."""

from dataclasses import dataclass
from pathlib import Path

from stages.dataset.labels import parse_labels
from stages.dataset.layout import image_id, label_path, mask_path
from stages.dataset.photos import BadPhoto, inside, probe_photo
from stages.dataset.truth import read_truth
from stages.shell.errors import UserError


@dataclass(frozen=True)
class Entry:
    """Rows for the tables. `image` is None when the photograph was rejected, `truth` when it has no mask."""

    image: dict | None
    boxes: list[dict]
    rejects: list[dict]
    truth: dict | None
    clipped: int


def read_entry(root: Path, split: str, photo: str, n_classes: int) -> Entry:
    """Read the photograph at `photo` below `root`, its labels and its mask. A bad photograph or row is a reject."""
    try:
        probe = probe_photo(inside(root, photo).read_bytes())
    except (BadPhoto, UserError, OSError) as error:
        return Entry(None, [], [_reject(photo, None, str(error), "image ignored")], None, 0)
    identity, labels = image_id(split, photo), label_path(photo)
    height, width = probe.size_hw
    found, refused, status = [], [], "missing"
    try:
        data = inside(root, labels).read_bytes()
    except FileNotFoundError:
        data = None
    except (UserError, OSError) as error:
        # without its labels nobody knows whether the photograph shows defects: it must not teach background
        return Entry(None, [], [_reject(photo, None, f"unreadable labels: {error}", "image ignored")], None, 0)
    if data is not None:
        found, bad_rows = parse_labels(data, probe.size_hw, n_classes)
        refused = [_reject(labels, row.line, row.reason, "row ignored") for row in bad_rows]
        status = "labelled" if found or bad_rows else "empty"
    image = {
        "image_id": identity,
        "split": split,
        "path": photo,
        "sha256": probe.sha256,
        "exif_orientation": probe.exif_orientation,
        "height": height,
        "width": width,
        "label_status": status,
    }
    boxes = [
        {
            "box_id": f"{identity}:{box.line}",
            "image_id": identity,
            "class_id": box.class_id,
            **dict(zip(("x1", "y1", "x2", "y2"), box.xyxy, strict=True)),
            "source": labels,
            "line": box.line,
        }
        for box in found
    ]
    png = read_truth(root, mask_path(photo), probe.size_hw, n_classes)
    truth = None if png is None else {"image_id": identity, "height": height, "width": width, "mask_png": png}
    return Entry(image, boxes, refused, truth, sum(box.clipped for box in found))


def _reject(file: str, line: int | None, reason: str, action: str) -> dict:
    return {"file": file, "line": line, "reason": reason, "action": action}
