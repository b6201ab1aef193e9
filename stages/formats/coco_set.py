"""A split of a COCO data set, written as images, label files and masks of the layout that ingest reads."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.errors import UserError
from stages.common.files import link_or_copy, write_parts
from stages.data.boxes import Box, pixels_of_box
from stages.data.decoding import EXIF_ORIENTATION, FORMATS
from stages.data.root_files import inside
from stages.data.tables import IGNORE, encode_label_map
from stages.formats.coco import annotations_of, by_id, draw
from stages.formats.correction import FOLDERS, MALFORMED, BadDrawing, check_size, values_of
from stages.ingestion.data_yaml import class_names


class CocoSplit:
    """A split, from the instances file `file`, whose images lie below `folders`. `names`: its categories, by id.

    `taken`: number of images, boxes and masks that `write` has written.
    """

    def __init__(self, split: str, file: Path, folders: Sequence[Path]) -> None:
        """Raises UserError where `file` is not an instances file of COCO, has no image, its ids do not fit together, or
        the names of its categories are none that `ingest` takes."""
        tree = _tree_of(file)
        if not tree["images"]:
            raise UserError(f"{file}: `images` is empty: the split {split} needs one or more")
        self.split, self.file, self.folders, self.images = split, file, folders, tree["images"]
        try:
            categories = sorted(by_id(tree, "categories").items())
            self.by_image = annotations_of(tree)
        except MALFORMED as error:
            raise UserError(f"{file}: {error}") from None
        self.names = class_names({"names": [one["name"] for _, one in categories]}, f"{file}: categories")
        self.categories = dict(zip((key for key, _ in categories), self.names, strict=True))
        self.drawn = any(one.get("segmentation") and not one.get("iscrowd") for one in tree["annotations"])
        self.taken = Counter(images=0, boxes=0, masks=0)

    def write(self, out: Path, image: dict, names: Sequence[str]) -> str | None:
        """Write an image, its label file and, where there is one, its mask below `out`.

        `image`: its entry in the instances file; `names`: of the data set's classes. Returns None, or the reason why
        nothing was written.
        """
        try:
            name, annotations = self._slashed(image["file_name"]), self.by_image[image["id"]]
            source = self._found(name)
            size_hw = _upright_size_hw(source)
            check_size((image.get("height"), image.get("width")), size_hw)
            rows = "".join(self._row(one, size_hw, names) for one in annotations if not one.get("iscrowd"))
            mask = self._mask(annotations, size_hw, names)
            images = (out / "images" / self.split).resolve()
            parts = inside(images, name).relative_to(images).parts
            # readers of labels and masks replace the last folder `images`, which must stay the one written here
            target = images.joinpath(*(part for part in parts[:-1] if part not in FOLDERS), parts[-1])
            stem = target.relative_to(images).with_suffix("")
            labels = out / "labels" / self.split / f"{stem}.txt"
            if labels.exists():
                raise BadDrawing(f"a second image called {stem}, whose label file would have the same name")
        except (BadDrawing, UserError) as error:
            return str(error)
        except MALFORMED as error:
            return f"cannot be read ({type(error).__name__}: {error})"
        link_or_copy(source, target)
        write_parts(labels, [rows.encode()])
        if mask is not None:
            folder = out / ("masks/test" if self.split == "test" else f"trusted/{self.split}")
            write_parts(folder / f"{stem}.png", [encode_label_map(mask)])
        self.taken.update(images=1, boxes=rows.count("\n"), masks=int(mask is not None))
        return None

    def _row(self, annotation: dict, size_hw: tuple[int, int], names: Sequence[str]) -> str:
        """The row of an annotation in a label file. Raises BadDrawing."""
        category = self.categories.get(annotation["category_id"])
        if category not in names:
            allowed = f"allowed are {', '.join(names)}"
            raise BadDrawing(f"category {annotation['category_id']} ({category}), {allowed}")
        (x1, y1, x2, y2), (height, width) = _corners(annotation["bbox"], size_hw), size_hw
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        return f"{names.index(category)} {' '.join(f'{share:.9f}' for share in shares)}\n"

    def _mask(self, annotations: list[dict], size_hw: tuple[int, int], names: Sequence[str]) -> np.ndarray | None:
        """(H, W) uint8 label map. None where the image has no segmentation, except in a test split that has some, and
        in train and val where it has a crowd: without a mask its pixels would be background."""
        certain = [one for one in annotations if one.get("segmentation") and not one.get("iscrowd")]
        crowded = any(one.get("iscrowd") for one in annotations)
        if not certain and not (self.drawn if self.split == "test" else crowded):
            return None
        labels = draw(certain, self.categories, values_of(names), size_hw)
        for one in annotations:
            if one.get("iscrowd") or not one.get("segmentation"):
                window = pixels_of_box(_corners(one["bbox"], size_hw), size_hw)
                area = labels[window.y1 : window.y2, window.x1 : window.x2]
                area[area == 0] = IGNORE
        return labels

    def _slashed(self, name: str) -> str:
        """`name` as on this system: backslashes separate folders, as in data.yaml, unless a file has that very name."""
        return name if any(inside(folder, name).is_file() for folder in self.folders) else name.replace("\\", "/")

    def _found(self, name: str) -> Path:
        """The image file `name` in the folder that has it. Raises BadDrawing unless exactly one of the folders has."""
        paths = [path for folder in self.folders if (path := inside(folder, name)).is_file()]
        if len(paths) != 1:
            raise BadDrawing(f"found in {len(paths)} of the folders {', '.join(map(str, self.folders))} (--images)")
        return paths[0]


def _tree_of(path: Path) -> dict:
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None
    for key, needed in (("images", "id"), ("annotations", "image_id"), ("categories", "name")):
        rows = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and needed in row for row in rows):
            raise UserError(f"{path}: no list `{key}` whose entries have `{needed}`: not an instances file of COCO")
    return tree


def _corners(bbox: Sequence[float], size_hw: tuple[int, int]) -> Box:
    """x1, y1, x2, y2 of COCO's x, y, width and height in pixels, cut off at the image. Raises BadDrawing."""
    numbers = np.array(bbox, np.float64)
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or (numbers[2:] <= 0).any():
        raise BadDrawing(f"bbox {bbox}, needed are x, y, width and height, the last two above 0")
    x1, y1, x2, y2 = np.concatenate([numbers[:2], numbers[:2] + numbers[2:]]).clip(0, [*size_hw[::-1]] * 2).tolist()
    if x1 >= x2 or y1 >= y2:
        raise BadDrawing(f"bbox {bbox} lies outside of the image of {size_hw[1]} x {size_hw[0]} pixels")
    return x1, y1, x2, y2


def _upright_size_hw(path: Path) -> tuple[int, int]:
    """Height and width as the EXIF orientation turns the image. Raises BadDrawing."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            # for a TIFF, Pillow gives the size after the turn
            turned = image.format != "TIFF" and image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            return image.size if turned else image.size[::-1]
    except Exception as error:  # decoders raise nearly any exception on hostile bytes
        raise BadDrawing(f"not a readable image: {error}") from None
