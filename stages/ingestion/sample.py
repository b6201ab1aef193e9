"""Read and check one image with its labels and its mask."""

from dataclasses import dataclass
from pathlib import Path

from stages.data.decoding import FLAT, BadImage
from stages.data.images import probe_image
from stages.data.root_files import Unreadable, read_file
from stages.data.tables import encode_label_map
from stages.ingestion.duplicates import perceptual_hash
from stages.ingestion.labels import ROUNDING, parse_labels
from stages.ingestion.layout import ImageFile, label_path, mask_path
from stages.ingestion.rejects import Reject
from stages.ingestion.truth import BadMask, parse_mask


@dataclass(frozen=True)
class Sample:
    """Rows for the tables. `image` is None when the image was rejected, `truth` when there is no usable mask.

    `truth_values`: values in the mask; `phash`: see `perceptual_hash`; `peak`: see `Decoded`.
    """

    image: dict | None
    boxes: list[dict]
    truth: dict | None
    rejects: list[Reject]
    truth_values: frozenset[int] = frozenset()
    phash: bytes | None = None
    peak: float | None = None


def read_sample(root: Path, image_file: ImageFile, class_count: int, white_level: float | None = None) -> Sample:
    """Read an image, its labels and its mask. Raises nothing on bad input: that becomes rejects.

    An image whose labels exist but cannot be read is rejected: without them its defects would be background.
    """
    try:
        if image_file.problem:
            raise Unreadable(image_file.problem)
        data = read_file(root, image_file.path)
        if data is None:
            raise Unreadable("image file not found")
        probe = probe_image(data, white_level)
        if probe.spread <= FLAT:
            raise BadImage(f"all pixels are alike (up to {FLAT} of 255 levels): it shows nothing")
        label_data = read_file(root, label_path(image_file.path))
    except (BadImage, Unreadable) as error:
        return Sample(None, [], None, [Reject(image_file.path, None, "image", str(error), "image dropped")])
    image = {
        "image_id": image_file.image_id,
        "split": image_file.split,
        "path": image_file.path,
        "sha256": probe.sha256,
        "exif_orientation": probe.exif_orientation,
        "height": probe.size_hw[0],
        "width": probe.size_hw[1],
        "label_status": "missing",
    }
    boxes, rejects = [], []
    if label_data is not None:
        boxes, rejects, image["label_status"] = _read_boxes(image_file, label_data, probe.size_hw, class_count)
    if probe.restored:
        rejects.append(Reject(image_file.path, None, "restored", "JPEG without its end marker, decoded whole", "noted"))
    truth, values, mask_file = None, frozenset(), mask_path(image_file.path)
    try:
        mask_data = None if mask_file is None else read_file(root, mask_file)
        if mask_data is not None:
            mask, values = parse_mask(mask_data, probe.size_hw, class_count)
            truth = {key: image[key] for key in ("image_id", "height", "width")}
            truth["mask_png"] = encode_label_map(mask)
    except (BadMask, Unreadable) as error:
        rejects.append(Reject(mask_file, None, "mask", str(error), "mask dropped"))
    return Sample(image, boxes, truth, rejects, frozenset(values), perceptual_hash(probe.thumbnail), probe.peak)


def _read_boxes(
    image_file: ImageFile, data: bytes, size_hw: tuple[int, int], class_count: int
) -> tuple[list[dict], list[Reject], str]:
    """Rows of the boxes table, rejects, and the label status of the images table."""
    source, labels = label_path(image_file.path), parse_labels(data, size_hw, class_count)
    boxes = [
        {
            "box_id": f"{image_file.image_id}:{line}",
            "image_id": image_file.image_id,
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
