"""COCO instances JSON: one annotation per defect, its mask as compressed RLE, which can have holes."""

import json
from collections.abc import Iterable

from stages.formats.measured_defects import Defect, Record


def coco(records: Iterable[Record], names: list[str]) -> bytes:
    """The bytes of an instances file. Category ids are class id + 1, as in the masks; `score` is the confidence."""
    images, annotations = [], []
    for image_id, record in enumerate(records, start=1):
        height, width = record.size_hw
        images.append({"id": image_id, "file_name": record.file, "width": width, "height": height})
        for defect in record.defects:
            annotations.append(_annotation(len(annotations) + 1, image_id, defect, record.size_hw))
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    tree = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
    return (json.dumps(tree) + "\n").encode()


def _annotation(number: int, image_id: int, defect: Defect, size_hw: tuple[int, int]) -> dict:
    x1, y1, x2, y2 = defect.box_xyxy
    return {
        "id": number,
        "image_id": image_id,
        "category_id": defect.class_id + 1,
        "segmentation": {"size": list(size_hw), "counts": defect.rle},
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": defect.area_px,
        "iscrowd": 0,
        "score": defect.confidence,
    }
