"""COCO instances JSON: one annotation per defect, its mask as compressed RLE, which can have holes.

Run lengths, compressed or not, and polygons can be read back, as other tools write them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count

import numpy as np

from stages.formats.correction import BadDrawing, Drawing, filled_polygon, label_map_of, value_of
from stages.formats.regions import Labelled, Region
from stages.masks import rle


def coco(records: Iterable[Labelled], names: list[str]) -> Iterator[bytes]:
    """The bytes of an instances file, in parts. Category ids are class id + 1, as in the masks; `score` is the
    confidence.

    `names`: of the classes. Memory grows by one line per image.
    """
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    yield f'{{"info": {{}}, "categories": {json.dumps(categories)}, "annotations": ['.encode()
    images, numbers = [], count(1)
    for image_id, record in enumerate(records, start=1):
        about = {"id": image_id, "file_name": record.file, "width": record.size_hw[1], "height": record.size_hw[0]}
        images.append(json.dumps(about | {"sha256": record.sha256}))
        for defect in record.defects:
            number = next(numbers)
            annotation = json.dumps(_annotation(number, image_id, defect, record.size_hw))
            yield f"{', ' * (number > 1)}{annotation}".encode()
    yield f'], "images": [{", ".join(images)}]}}\n'.encode()


def _annotation(number: int, image_id: int, defect: Region, size_hw: tuple[int, int]) -> dict:
    x1, y1, x2, y2 = defect.box_xyxy
    return {
        "id": number,
        "image_id": image_id,
        "category_id": defect.class_id + 1,
        "segmentation": {"size": list(size_hw), "counts": defect.rle},
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": defect.area_px,
        "iscrowd": 0,
        **({} if defect.confidence is None else {"score": defect.confidence}),
    }


def read_coco(tree: dict, values: Mapping[str, int]) -> Iterator[Drawing]:
    """The images of an instances file; those without annotations are all background.

    `values`: of labels, see `correction.values_of`; categories are matched by name. Raises as `annotations_of`.
    """
    categories = {key: one["name"] for key, one in by_id(tree, "categories").items()}
    for image, annotations in zip(tree["images"], annotations_of(tree).values(), strict=True):
        drawn = partial(draw, annotations, categories, values)
        name = str(image.get("file_name", f"image {image['id']}"))
        yield Drawing(name, (image.get("height"), image.get("width")), drawn, image.get("sha256"))


def by_id(tree: dict, key: str) -> dict[int | str, dict]:
    """The entries of the list `key` by their ids. Raises BadDrawing unless all are numbers, or all texts, each once."""
    found, kind = {}, str if any(isinstance(one.get("id"), str) for one in tree.get(key, [])) else int | float
    for one in tree.get(key, []):
        if not isinstance(own := one.get("id"), kind) or own in found:
            raise BadDrawing(f"{key}: id {own!r}, allowed are numbers alone or texts alone, each once")
        found[own] = one
    return found


def annotations_of(tree: dict) -> dict[int | str, list[dict]]:
    """The annotations of each image, by its id. Raises BadDrawing for one of no image, and as `by_id`."""
    found = {key: [] for key in by_id(tree, "images")}
    for annotation in tree["annotations"]:
        if (image_id := annotation.get("image_id")) not in found:
            allowed = f"allowed are the ids of the images, such as {next(iter(found), None)!r}"
            raise BadDrawing(f"annotation {annotation.get('id')!r}: image_id {image_id!r}, {allowed}")
        found[image_id].append(annotation)
    return found


def draw(
    annotations: list[dict], categories: Mapping[int, str], values: Mapping[str, int], size_hw: tuple[int, int]
) -> np.ndarray:
    """(H, W) uint8 label map of the segmentations of one image, later ones on top. Raises BadDrawing."""
    parts = (
        (*part, value)
        for one in annotations
        for value in [value_of(categories.get(one["category_id"]), values)]
        for part in _parts(one.get("segmentation"), size_hw)
    )
    return label_map_of(parts, size_hw)


def _parts(segmentation: object, size_hw: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Place and (h, w) bool mask of each part. Raises BadDrawing."""
    if not segmentation:
        raise BadDrawing("an annotation without segmentation: a box alone does not say which pixels")
    if isinstance(segmentation, list):
        for ring in segmentation:
            yield filled_polygon(np.array(ring, np.float64).reshape(-1, 2), size_hw)
        return
    if tuple(segmentation["size"]) != size_hw:
        raise BadDrawing(f"run lengths for an image of {segmentation['size']}, this one has {list(size_hw)}")
    counts = segmentation["counts"]
    runs = rle.counts_of(counts.encode("ascii")) if isinstance(counts, str) else np.array(counts, np.int64)
    if runs.sum() != size_hw[0] * size_hw[1] or runs.min() < 0:
        raise BadDrawing(f"run lengths of {runs.sum()} pixels, the image has {size_hw[0] * size_hw[1]}")
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size_hw[::-1]).T
    yield (slice(None), slice(None)), mask
