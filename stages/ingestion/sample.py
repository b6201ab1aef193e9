"""Read and check one image with its labels and its mask."""

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stages.data.decoding import FLAT, BadImage
from stages.data.images import Probe, probe_image
from stages.data.root_files import Unreadable, read_file
from stages.data.tables import encode_label_map
from stages.ingestion.counterparts import Counterparts
from stages.ingestion.duplicates import perceptual_hash
from stages.ingestion.labels import MAX_LABEL_BYTES, MAX_ROWS, ROUNDING, RowFormat, count_rows, parse_labels
from stages.ingestion.layout import ImageFile, is_image
from stages.ingestion.pixel_truth import BadMask, MaskFormat, misfits, parse_mask
from stages.ingestion.rejects import Reject

LISTED = 100
"""Bad rows of one label file that are listed one by one; the rest share one finding."""

ANNOTATION = re.compile(rb'"(?:shapes|objects|annotations)"\s*:\s*\[\s*\{|<(?:bndbox|polygon|robndbox)>')
"""Start of the annotations in a JSON file, such as one of LabelMe, or of one annotation in a Pascal VOC file."""

NOT_LOST = ("duplicate", "below_confidence")
"""Kinds of dropped rows that do not count as lost."""


@dataclass(frozen=True)
class Sample:
    """Rows for the tables. `image` is None when the image was rejected, `truth` when there is no usable mask.

    `dropped`: rows of the label file that were dropped, by kind; `forms`: rows that were taken, by what they held;
    `keypoints`: see `LabelledBox`; `truth_labels`: labels in the mask; `boxes_on_truth`: number of boxes with a defect
    pixel of the mask inside, and of those that have none of their own class; `phash`: see `perceptual_hash`; `peak`:
    see `Decoded`.
    """

    image: dict | None
    boxes: list[dict]
    truth: dict | None
    rejects: list[Reject]
    dropped: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    keypoints: Counter[int] = field(default_factory=Counter)
    truth_labels: frozenset[int] = frozenset()
    boxes_on_truth: tuple[int, int] = (0, 0)
    phash: bytes | None = None
    peak: tuple[float, float] | None = None


def read_sample(
    beside: Counterparts, image_file: ImageFile, format: RowFormat, masks: MaskFormat, white_level: float | None = None
) -> Sample:
    """Read an image, its labels and its mask. Raises nothing on bad input: that becomes rejects.

    An image whose labels exist but cannot be read is rejected: without them its defects would be background.
    """
    source, label_data, problem, elsewhere = beside.label(image_file.path), None, None, 0
    try:
        label_data = _read_labels(beside, source)
        if label_data is None:
            problem, elsewhere = _labels_elsewhere(beside, image_file.path, source)
    except Unreadable as error:
        problem = str(error)
    try:
        probe = _probe(beside.root, image_file, white_level)
        if problem:
            raise Unreadable(problem)
    except (BadImage, Unreadable) as error:
        kind = "labels_elsewhere" if elsewhere else "image" if is_image(image_file.path) else "unread_suffix"
        rows = elsewhere or count_rows(label_data or b"")
        return Sample(None, [], None, [Reject(image_file.path, None, kind, str(error), "image dropped", rows)])
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
    if image_file.split == "test" and format.polygons == "trust":
        format = replace(format, polygons="box")  # trusted masks are for training, test images for scores
    labels = parse_labels(label_data or b"", probe.size_hw, format)
    if label_data is not None:
        image["label_status"] = "labelled" if labels.boxes or labels.bad else "empty"
    boxes = [
        {
            "box_id": f"{image_file.image_id}:{line}",
            "image_id": image_file.image_id,
            "class_id": box.class_id,
            **dict(zip(("x1", "y1", "x2", "y2"), box.xyxy, strict=True)),
            "source": source,
            "line": line,
            "mask": box.mask,
        }
        for line, box in labels.boxes
    ]
    rejects = [
        Reject(source, line, bad.kind, str(bad), "row dropped", int(bad.kind not in NOT_LOST))
        for line, bad in labels.bad[:LISTED]
    ]
    if rest := labels.bad[LISTED:]:
        lost, reason = sum(bad.kind not in NOT_LOST for _, bad in rest), f"{len(rest):,} rows more, from this one on"
        rejects.append(Reject(source, rest[0][0], rest[0][1].kind, f"{reason}: {rest[0][1]}", "row dropped", lost))
    rejects += [
        Reject(source, line, "clipped", f"box reaches {box.overhang:.2%} out of the image", "box clipped")
        for line, box in labels.boxes
        if box.overhang > ROUNDING
    ]
    if probe.several:
        rejects.append(Reject(image_file.path, None, "pages", "of several pages or frames the first is read", "noted"))
    if probe.restored:
        rejects.append(Reject(image_file.path, None, "restored", "JPEG without its end marker, decoded whole", "noted"))
    truth, truth_labels, on_truth = None, frozenset(), (0, 0)
    mask_file = beside.mask(image_file.path)
    try:
        mask_data = None if mask_file is None else read_file(beside.root, mask_file)
        if mask_data is not None:
            mask = parse_mask(mask_data, probe.size_hw, masks)
            truth_labels = frozenset(np.unique(mask).tolist())
            with_defect, wrong = misfits(mask, boxes)
            on_truth = with_defect, len(wrong)
            if wrong:
                more = f" ({len(wrong)} such boxes in this file)" if len(wrong) > 1 else ""
                reason = f"{mask_file} has defects in this box, and none of its class {wrong[0]['class_id']}{more}"
                rejects.append(Reject(source, wrong[0]["line"], "truth_class", reason, "mask kept"))
            truth = {key: image[key] for key in ("image_id", "height", "width")}
            truth["mask_png"] = encode_label_map(mask)
    except (BadMask, Unreadable) as error:
        rejects.append(Reject(mask_file, None, "mask", str(error), "mask dropped"))
    dropped, forms = Counter(bad.kind for _, bad in labels.bad), Counter(box.form for _, box in labels.boxes)
    keypoints = Counter(box.keypoints for _, box in labels.boxes if box.keypoints)
    phash = perceptual_hash(probe.thumbnail)
    return Sample(image, boxes, truth, rejects, dropped, forms, keypoints, truth_labels, on_truth, phash, probe.peak)


def _probe(root: Path, image_file: ImageFile, white_level: float | None) -> Probe:
    if image_file.problem:
        raise Unreadable(image_file.problem)
    data = read_file(root, image_file.path)
    if data is None:
        raise Unreadable("image file not found")
    probe = probe_image(data, white_level)
    if probe.spread <= FLAT:
        raise BadImage(f"all pixels are alike (up to {FLAT} of 255 levels): it shows nothing")
    return probe


def _labels_elsewhere(beside: Counterparts, image: str, label: str) -> tuple[str | None, int]:
    """For an image without label file: why labels in another file are not read, and their number; else None and 0."""
    for path in beside.elsewhere(image):
        with suppress(Unreadable):
            data = read_file(beside.root, path) or b""
            rows = count_rows(data) if path.lower().endswith(".txt") else len(ANNOTATION.findall(data))
            if rows:
                return f"its labels are in {path}, which is not read; expected are rows of YOLO in {label}", rows
    return None, 0


def _read_labels(beside: Counterparts, path: str) -> bytes | None:
    """Bytes of a label file, None without one. Raises Unreadable, also for a broken link."""
    data = read_file(beside.root, path, MAX_LABEL_BYTES)
    if data is None and beside.is_listed(path):
        raise Unreadable(f"{path} is a link to nothing")
    if data is not None and (rows := max(data.count(b"\n"), data.count(b"\r"))) > MAX_ROWS:
        raise Unreadable(f"{path} has {rows:,} rows, allowed are {MAX_ROWS:,}")
    return data
