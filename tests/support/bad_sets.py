"""Data sets with one fault each, and what ingest must do about it. Does not import the code under test."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiff import tiff

SIZE_WH = (40, 24)
BASE_IDS = {"train/a", "train/b", "train/c", "train/d", "val/e", "val/f", "test/g", "test/h"}
OUT = "leads out of the data root"
DATA_YAML = "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: [dirt, damage]\n"
ROW = "0 .5 .5 .5 .5\n"


@dataclass(frozen=True)
class Kind:
    """`build` spoils a sound data set. `findings`: (file, line, part of the reason, action), all that there may be.

    `refused`: part of the one line with which the stage ends; None: it goes through. `counts` are dotted keys of
    metrics/ingest.json, `gone` the ids that may be missing from the tables, `sizes_hw` of some that must be there.
    """

    build: Callable[[Path], object]
    findings: tuple[tuple[str, int | None, str, str], ...] = ()
    refused: str | None = None
    counts: dict[str, object] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    sizes_hw: dict[str, tuple[int, int]] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=lambda: {"max_bad_share": 0.6})


KINDS: dict[str, Kind] = {}


def kind(name: str, build: Callable[[Path], object], *findings: tuple, **more: object) -> None:
    assert name not in KINDS, name
    more["gone"] = frozenset(more.get("gone", ()))
    KINDS[name] = Kind(build, findings, **more)


def picture(seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Image.Image:
    """Coarse random blocks, different for each seed, that every file format preserves."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size_wh, Image.Resampling.NEAREST)


def encoded(image: Image.Image, suffix: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=suffix, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def sound(root: Path) -> Path:
    """Eight images, five boxes, an empty label file, missing ones, and one mask of truth; nothing to find."""
    for seed, name in enumerate(sorted(BASE_IDS)):
        put(root / f"images/{name}.png", encoded(picture(seed)))
    put(root / "labels/train/a.txt", "0 .5 .5 .25 .25\n1 .25 .25 .1 .1\n")
    put(root / "labels/train/b.txt", "1 .5 .5 .25 .25\n")
    put(root / "labels/train/c.txt", "")
    put(root / "labels/val/e.txt", "1 .5 .5 .25 .25\n")
    put(root / "labels/test/g.txt", "1 .5 .5 .25 .25\n")
    put(root / "masks/test/g.png", encoded(Image.fromarray(truth())))
    put(root / "data.yaml", DATA_YAML)
    return root


def truth() -> np.ndarray:
    labels = np.zeros(SIZE_WH[::-1], np.uint8)
    labels[9:15, 15:20], labels[9:15, 20:25] = 1, 2  # a box of either class fits
    return labels


def image_file(name: str, data: bytes, row: str = ROW) -> Callable[[Path], None]:
    """One image more in train, with a box over its middle."""

    def build(root: Path) -> None:
        put(root / f"images/train/{name}", data)
        put(root / f"labels/train/{Path(name).stem}.txt", row)

    return build


def labels(data: bytes | str) -> Callable[[Path], None]:
    return lambda root: put(root / "labels/train/a.txt", data)


def config(text: str) -> Callable[[Path], None]:
    return lambda root: put(root / "data.yaml", text)


def both(*builds: Callable[[Path], object]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for one in builds:
            one(root)

    return build


def link(path: str, target: str, what: bytes | None = b"0 .5 .5 .1 .1\n") -> Callable[[Path], None]:
    """A symbolic link at `path` to a file (or, without bytes, a folder) beside the data set."""

    def build(root: Path) -> None:
        outside = root.parent / target
        if what is None:
            outside.mkdir()
            put(outside / "z.png", encoded(picture(99)))
        else:
            outside.write_bytes(what)
        (root / path).unlink(missing_ok=True)
        (root / path).symlink_to(outside)

    return build


def pipe(path: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        (root / path).unlink(missing_ok=True)
        os.mkfifo(root / path)

    return build


def sparse(path: str, size: int) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        with (root / path).open("wb") as file:
            file.truncate(size)

    return build


def bmp_bomb() -> bytes:
    data = bytearray(encoded(picture(1), "bmp"))
    data[18:26] = (100_000).to_bytes(4, "little") * 2
    return bytes(data)


def png_bomb() -> bytes:
    """A sound header of 60,000 x 60,000 grey pixels and a few bytes of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(50), "jpeg", exif=exif)


# Images. One more of them: five in train instead of four, and a box more.

FINE = {"train.images": 5, "train.boxes": 4}
X = "images/train/x.{}"
JPEG = encoded(picture(50, (400, 240)), "jpeg")
PNG = encoded(Image.effect_noise(SIZE_WH, 60))
GREY = picture(50).convert("L")
WIDE = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
ALPHA = picture(50).convert("RGBA")
ALPHA.putalpha(GREY)


def dropped(suffix: str, reason: str) -> tuple[str, None, str, str]:
    return (X.format(suffix), None, reason, "image dropped")


kind("a sound data set", lambda root: None, counts={"train.boxes": 3, "val.boxes": 1, "test.truth": 1})
kind("zero-byte image", image_file("x.jpg", b""), dropped("jpg", "file is empty"))
kind("truncated JPEG", image_file("x.jpg", JPEG[: len(JPEG) // 2]), dropped("jpg", "corrupt image"))
kind("truncated PNG", image_file("x.png", PNG[: len(PNG) // 2]), dropped("png", "corrupt image"))
kind("JPEG with bytes behind its end", image_file("x.jpg", JPEG + b"\0" * 99), counts=FINE)
kind("PNG called JPEG", image_file("x.jpg", encoded(picture(50))), counts=FINE)
kind("GIF called JPEG", image_file("x.jpg", encoded(picture(50), "gif")), dropped("jpg", "not an image that can be"))
kind("text called JPEG", image_file("x.jpg", b"hello"), dropped("jpg", "not an image that can be identified"))
kind("PostScript called JPEG", image_file("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"), dropped("jpg", "not an image"))
kind(
    "suffix that is not read",
    lambda root: put(root / X.format("heic"), b"x"),
    dropped("heic", ".heic is not read: convert it to one of"),
    counts={"train.rejected_images": 1},
)
kind("suffix in capitals", image_file("x.JPG", JPEG), counts=FINE)
kind("16-bit grey PNG", image_file("x.png", encoded(WIDE)), counts=FINE)
kind("16-bit grey TIFF", image_file("x.tif", encoded(WIDE, "tiff")), counts=FINE)
kind("palette", image_file("x.png", encoded(picture(50).convert("P"))), counts=FINE)
kind("palette with transparency", image_file("x.png", encoded(GREY.convert("P"), transparency=3)), counts=FINE)
kind("CMYK JPEG", image_file("x.jpg", encoded(picture(50).convert("CMYK"), "jpeg")), counts=FINE)
kind("alpha", image_file("x.png", encoded(ALPHA)), counts=FINE)
kind("grey with alpha", image_file("x.png", encoded(ALPHA.convert("LA"))), counts=FINE)
kind("grey", image_file("x.jpg", encoded(GREY, "jpeg")), counts=FINE)
kind("black and white", image_file("x.png", encoded(GREY.convert("1"))), counts=FINE)
FLOATS = np.asarray(GREY).astype(np.float32)
kind("floating-point TIFF", image_file("x.tif", tiff(FLOATS / 255)), counts=FINE)
kind("floats up to 255", image_file("x.tif", tiff(FLOATS)), dropped("tif", "floating-point values up to 2"))
WHITE = {"white_level": 255.0, "max_bad_share": 0.0}
kind("floats up to 255, with a white level", image_file("x.tif", tiff(FLOATS)), counts=FINE, settings=WHITE)
kind("32-bit integers", image_file("x.tif", tiff(FLOATS.astype("i4"))), dropped("tif", "set by ingest.white_level"))
FIVE = tiff(np.dstack([FLOATS.astype("u1")] * 5), 1, extra=[0] * 4)
kind("five bands", image_file("x.tif", FIVE), dropped("tif", "TIFF of 5 bands; allowed are 1 to 4"))
PLANAR = tiff(np.asarray(picture(50)).astype("u2"), planar=True)
kind("planar 16-bit colour", image_file("x.tif", PLANAR), dropped("tif", "this layout cannot be decoded"))
kind(
    "JPEG without its last two bytes",
    image_file("x.jpg", JPEG[:-2]),
    (X.format("jpg"), None, "JPEG without its end marker", "noted"),
    counts=FINE,
)
ONE_COLOUR = encoded(Image.new("RGB", SIZE_WH, (9, 99, 199)))
kind("image of one colour", image_file("x.png", ONE_COLOUR), dropped("png", "all pixels are alike"))
SHADES = np.arange(SIZE_WH[0] * SIZE_WH[1]).reshape(SIZE_WH[::-1])
FOUR_LEVELS, FIVE_LEVELS = (encoded(Image.fromarray(np.uint8(90 + SHADES % count))) for count in (4, 5))
kind("image of four grey levels", image_file("x.png", FOUR_LEVELS), dropped("png", "alike (up to 3 of 255 levels)"))
kind("image of five grey levels", image_file("x.png", FIVE_LEVELS), counts=FINE)
kind("LAB TIFF", image_file("x.tif", encoded(Image.new("LAB", SIZE_WH), "tiff")), dropped("tif", "colour mode LAB"))
for suffix, form, second in (("tif", "tiff", picture(51, (9, 9))), ("png", "png", GREY), ("webp", "webp", GREY)):
    kind(
        f"several pages in a {form}",
        image_file(f"x.{suffix}", encoded(picture(50), form, save_all=True, append_images=[second])),
        (X.format(suffix), None, "of several pages or frames the first is read", "noted"),
        counts=FINE,
        sizes_hw={"train/x": (24, 40)},
    )
for turn in range(1, 9):
    size_hw = (24, 40) if turn < 5 else (40, 24)
    kind(f"EXIF orientation {turn}", image_file("x.jpg", turned(turn)), counts=FINE, sizes_hw={"train/x": size_hw})
kind("EXIF orientation 77", image_file("x.jpg", turned(77)), counts=FINE, sizes_hw={"train/x": (24, 40)})
kind(
    "broken EXIF", image_file("x.jpg", encoded(picture(50), "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")), counts=FINE
)
kind("decompression bomb, BMP", image_file("x.bmp", bmp_bomb()), dropped("bmp", "100000 x 100000 pixels, allowed are"))
kind("decompression bomb, PNG", image_file("x.png", png_bomb()), dropped("png", "60000 x 60000 pixels, allowed are"))
kind("one-pixel image", image_file("x.png", encoded(picture(1, (1, 1)))), dropped("png", "image size 1 x 1 <10 pixels"))
kind("nine pixels high", image_file("x.png", encoded(picture(1, (99, 9)))), dropped("png", "image size 99 x 9 <10"))
kind(
    "very long image",
    image_file("x.png", encoded(picture(50, (20_000, 10)))),
    counts=FINE,
    sizes_hw={"train/x": (10, 20_000)},
)
kind(
    "image file of two gigabytes", sparse(X.format("tif"), 1 << 31), dropped("tif", "2,147,483,648 bytes, allowed are")
)
kind("image that is a pipe", pipe(X.format("png")), dropped("png", "is not a regular file"))
kind("link to an image outside", link(X.format("png"), "o.png", PNG), dropped("png", OUT))
kind("link to nothing", lambda root: (root / X.format("png")).symlink_to(root / "gone"), dropped("png", "not found"))
kind("link in a circle", lambda root: (root / X.format("png")).symlink_to(root / X.format("png")), dropped("png", ""))
kind("folder called like an image", lambda root: (root / X.format("png")).mkdir())
kind("hidden file of a Mac", lambda root: put(root / "images/train/._a.png", b"Mac OS X"))
kind(
    "two images with one stem",
    lambda root: put(root / "images/train/a.jpg", JPEG),
    ("images/train/a.jpg", None, "2 images share one name stem", "image dropped"),
    ("images/train/a.png", None, "2 images share one name stem", "image dropped"),
    gone={"train/a"},
)
kind(
    "too many bad images",
    image_file("x.jpg", b""),
    dropped("jpg", "file is empty"),
    refused="1 of 9 images are unusable, 1 of 5 label files are unusable, 1 of 6 label rows are lost "
    "(ingest.max_bad_share = 0.05): images/train/x.jpg: file is empty",
    settings={"max_bad_share": 0.05},
)
kind(
    "a split of bad images alone",
    both(lambda root: put(root / "images/val/e.png", b""), lambda root: put(root / "images/val/f.png", b"")),
    ("images/val/e.png", None, "file is empty", "image dropped"),
    ("images/val/f.png", None, "file is empty", "image dropped"),
    refused="2 of 8 images are unusable (val has no other)",
)

# Labels. Those of train/a are replaced; of three boxes in train one remains in train/b.

A = "labels/train/a.txt"
GOOD = "0 .5 .5 .25 .25\n"


def row(text: str, reason: str, action: str = "row dropped", **more: object) -> dict:
    """A bad row between two good ones: only this row is dropped."""
    kept = 2 + (action == "box clipped")
    counts = {"train.boxes": kept + 1, "train.images": 4} | more
    return {"build": labels(f"{GOOD}{text}\n1 .3 .3 .2 .2\n"), "finding": (A, 2, reason, action), "counts": counts}


ROWS = {
    "confidence": row("0 .5 .5 .1 .1 .9", "6 columns detected: the last, .9, looks like a confidence"),
    "column too few": row("0 .5 .5 .1", "labels require 5 columns, 4 columns detected"),
    "even number of columns": row(
        "0 .1 .1 .9 .1 .9 .9 .1", "8 columns detected: the last, .1, looks like a confidence"
    ),
    "commas for spaces": row("0,.5,.5,.1,.1", "labels require 5 columns, 1 columns detected"),
    "decimal commas": row("0 0,5 0,5 0,1 0,1", "'0,5' is not a number"),
    "negative coordinate": row("0 -.5 .5 .1 .1", "non-normalized or out of bounds coordinates -.5"),
    "negative size": row("0 .5 .5 -.1 .1", "box size -.1 x .1 is not positive"),
    "NaN": row("0 nan .5 .1 .1", "nan is not a finite number"),
    "infinity": row("0 .5 .5 inf .1", "inf is not a finite number"),
    "number beyond floats": row("0 .5 .5 1e999 .1", "1e999 is not a finite number"),
    "hexadecimal number": row("0 0x1 .5 .1 .1", "'0x1' is not a number"),
    "digits of another script": row("0 ٠.٥ .5 .1 .1", "is not a number"),
    "number of a million digits": row(f"0 0.{'5' * 10**6} .5 3 .1", "out of bounds coordinates 0.5555"),
    "slightly out of bounds": row(
        "0 .955 .5 .1 .1", "box reaches 0.50% out", "box clipped", **{"train.clipped_boxes": 1}
    ),
    "pixels instead of shares": row("0 320 240 64 48", "non-normalized or out of bounds coordinates 320 240 64 48"),
    "zero area": row("0 .5 .5 0 .1", "box size 0 x .1 is not positive"),
    "sliver beyond the edge": row("0 1.004 .5 .006 .1", "has no area inside the image"),
    "duplicate row": row(GOOD.strip(), "duplicate label removed, same as line 1", **{"train.duplicates_removed": 1}),
    "unknown class": row("7 .5 .5 .1 .1", "label class 7 exceeds dataset class count 2, possible class labels are 0-1"),
    "negative class": row("-1 .5 .5 .1 .1", "negative label class -1"),
    "half a class": row("0.5 .5 .5 .1 .1", "label class 0.5 is not an integer"),
    "class by name": row("dirt .5 .5 .1 .1", "'dirt' is not a number"),
    "binary junk": row("\x00\x01\x02", "labels require 5 columns, 1 columns detected"),
}
for name, made in ROWS.items():
    kind(name, made["build"], made["finding"], counts=made["counts"])

TWO = {"train.boxes": 3, "train.labels_labelled": 2, "train.rejected_rows": 0}
MANY = "".join(f"0 {0.1 + 0.008 * (i % 100):.6f} {0.1 + 0.008 * (i // 100):.6f} .03 .05\n" for i in range(10_000))
kind("byte-order mark", labels("\ufeff0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n"), counts=TWO)
kind("CRLF", labels("0 .5 .5 .2 .2\r\n1 .5 .5 .2 .2\r\n"), counts=TWO)
kind("CR alone", labels("0 .5 .5 .2 .2\r1 .5 .5 .2 .2\r"), counts=TWO)
kind("tabs", labels("0\t.5\t.5\t.2\t.2\n1\t.5 .5\t .2 .2"), counts=TWO)
kind("blank lines and spaces", labels("\n  0 .5 .5 .2 .2  \n\n \t\n1 .5 .5 .2 .2\n\n"), counts=TWO)
kind("class written as a float", labels("0.0 .5 .5 .2 .2\n1.0 .5 .5 .2 .2\n"), counts=TWO)
kind(
    "UTF-16",
    labels("0 .5 .5 .2 .2\n".encode("utf-16")),
    (A, 1, "is not a number", "row dropped"),
    (A, 2, "columns detected", "row dropped"),
    counts={"train.labels_without_usable_row": 1, "train.images": 4},
)
kind("10,000 boxes", labels(MANY), counts={"train.boxes": 10_001})
kind(
    "missing label file", lambda root: (root / A).unlink(), counts={"train.labels_missing": 2, "train.labels_empty": 1}
)
kind("empty label file", labels(""), counts={"train.labels_missing": 1, "train.labels_empty": 2})
kind("label file of white space", labels(" \r\n\t\n"), counts={"train.labels_missing": 1, "train.labels_empty": 2})
kind(
    "orphan label",
    lambda root: put(root / "labels/train/gone.txt", GOOD),
    ("labels/train/gone.txt", None, "label file without an image", "file ignored"),
    counts={"orphan_labels": 1},
)
kind("classes.txt beside the labels", lambda root: put(root / "labels/train/classes.txt", "dirt\ndamage\n"))


def label_trouble(name: str, reason: str, build: Callable[[Path], object]) -> None:
    """Labels exist but cannot be read: the image is rejected."""
    finding = ("images/train/a.png", None, f"{A} {reason}", "image dropped")
    kind(name, build, finding, gone={"train/a"}, counts={"train.images": 3})


label_trouble(
    "label that is a folder",
    "is not a regular file",
    both(labels(""), lambda r: (r / A).unlink(), lambda r: (r / A).mkdir()),
)
label_trouble("label that is a pipe", "is not a regular file", pipe(A))
label_trouble("link to a label outside", OUT, link(A, "o.txt"))
label_trouble("label file of two gigabytes", "has 2,147,483,648 bytes", sparse(A, 1 << 31))
kind(
    "labels in pixels throughout",
    both(labels("0 20 12 9 9\n"), lambda root: put(root / "labels/train/b.txt", "0 20 12 9 9\n")),
    (A, 1, "non-normalized", "row dropped"),
    ("labels/train/b.txt", 1, "non-normalized", "row dropped"),
    refused="2 of 4 label files are unusable, 2 of 4 label rows are lost (ingest.max_bad_share = 0.05): "
    "labels/train/a.txt:1: non-normalized",
    settings={"max_bad_share": 0.05},
)
kind(
    "labels in a folder of another name",
    lambda root: (root / "labels").rename(root / "annotations"),
    refused="nothing to learn; the label file of images/train/a.png would be labels/train/a.txt",
)

# Losses. One budget bounds them; what can be known is said, with the way out.

STRICT = {"max_bad_share": 0.05}


def every(*paths: str, text: str) -> Callable[[Path], None]:
    return both(*(lambda root, path=path: put(root / path, text) for path in paths))


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


FOUR_LABELS = (A, "labels/train/b.txt", "labels/val/e.txt", "labels/test/g.txt")
POLYGON = "0 .1 .2 .5 .1 .6 .7 .2 .8\n"
kind("polygons alone", every(*FOUR_LABELS, text=POLYGON), settings=STRICT, counts={"train.boxes_by_form.oriented": 2})
kind("a box and a polygon", labels(GOOD + POLYGON), settings=STRICT, counts={"train.boxes": 3})
kind(
    "confidences",
    every(*FOUR_LABELS, text="0 .5 .5 .3 .3 .87\n"),
    *((path, 1, "looks like a confidence", "row dropped") for path in sorted(FOUR_LABELS)),
    refused="ingest.confidence: 0 takes these rows",
    settings=STRICT,
)
TAKEN = STRICT | {"confidence": 0.0}
kind("confidences taken", every(*FOUR_LABELS, text="0 .5 .5 .3 .3 .87\n"), settings=TAKEN, counts={"train.boxes": 2})
kind(
    "poses",
    both(config(DATA_YAML + "kpt_shape: [2, 3]\n"), labels("0 .5 .5 .3 .3 .4 .4 2 .6 .6 1\n")),
    settings=STRICT,
    counts={"train.boxes_by_form.pose": 1},
)
KEYPOINTS = "0 .5 .5 .3 .3 .45 .45{0} .55 .55{0} .6 .6{0}\n"
kind(
    "poses without kpt_shape",
    labels(KEYPOINTS.format(" 2")),
    settings=STRICT,
    counts={"train.boxes_by_form.pose": 1, "train.boxes": 2},
)
kind(
    "poses without kpt_shape and visibility",
    labels("".join(KEYPOINTS.format("").replace(".3 .3", f".3 .3{i}") for i in range(10))),
    settings=STRICT,
    refused="all 10 rows with corners have 11 columns and look like keypoints: write kpt_shape into data.yaml",
)
kind(
    "corners and a confidence",
    every(*FOUR_LABELS, text=POLYGON.strip() + " .87\n"),
    settings=TAKEN,
    counts={"train.boxes_by_form.oriented": 2},
)
kind(
    "half of the rows lost in one file",
    labels(GOOD + "0 .5 .5 7 7\n"),
    (A, 2, "non-normalized", "row dropped"),
    refused="1 of 5 label rows are lost (ingest.max_bad_share = 0.05): labels/train/a.txt:2: non-normalized",
    settings=STRICT,
)
kind(
    "labels without an image",
    both(renamed(A, "labels/train/z.txt")),
    ("labels/train/z.txt", None, "there is no image images/train/z.*", "file ignored"),
    refused="2 of 5 label rows are lost (ingest.max_bad_share = 0.05): labels/train/z.txt: label file without an image",
    settings=STRICT,
)
for beside, text in (
    ("images/train/a.txt", GOOD + ROW),
    ("images/train/a.json", '{"version": "5.2.1", "shapes": [{"label": "dirt", "points": [[1, 2], [9, 9]]}]}'),
    ("labels/train/a.xml", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>"),
):
    kind(
        f"labels elsewhere, in {beside}",
        both(lambda r: (r / A).unlink(), lambda r, beside=beside, text=text: put(r / beside, text)),
        ("images/train/a.png", None, f"its labels are in {beside}, which is not read", "image dropped"),
        refused="1 of 8 images are unusable",
        settings=STRICT,
    )
kind("folder of labels in another case", renamed("labels", "Labels"), settings=STRICT, counts={"train.boxes": 3})
kind("label file called .TXT", renamed(A, "labels/train/a.TXT"), settings=STRICT, counts={"train.boxes": 3})
NFD, NFC = "scha\u0308den", "sch\u00e4den"
kind(
    "image in NFD, label in NFC",
    both(renamed("images/train/a.png", f"images/train/{NFD}.png"), renamed(A, f"labels/train/{NFC}.txt")),
    settings=STRICT,
    counts={"train.boxes": 3},
    gone={"train/a"},
)
kind(
    "labelled HEIC",
    both(image_file("x.heic", b"x"), image_file("y.HEIC", b"y")),
    (X.format("heic"), None, ".heic is not read: convert it", "image dropped"),
    ("images/train/y.HEIC", None, ".HEIC is not read: convert it", "image dropped"),
    refused="2 of 10 images are unusable, 2 of 6 label files are unusable, 2 of 7 label rows are lost "
    "(ingest.max_bad_share = 0.05): images/train/x.heic: .heic is not read",
    settings=STRICT,
)
kind(
    "HEIC beside the JPEG made of it",
    both(image_file("x.jpg", JPEG), image_file("x.heic", b"x")),
    (X.format("heic"), None, "the image of the same name beside it is", "file ignored"),
    settings=STRICT,
    counts=FINE,
)
kind(
    "suffix that nobody knows, labelled",
    image_file("x.camera7", b"x"),
    (X.format("camera7"), None, ".camera7 is not read: convert it", "image dropped"),
    refused="1 of 9 images are unusable",
    settings=STRICT,
)
label_trouble(
    "link to a label that is gone",
    "is a link to nothing",
    both(lambda r: (r / A).unlink(), lambda r: (r / A).symlink_to("gone")),
)
label_trouble("label file of millions of rows", "has 200,000 rows, allowed are 100,000", labels("x\n" * 200_000))
kind(
    "label file of many bad rows",
    labels(GOOD + "x\n" * 1000),
    *((A, line, "columns detected", "row dropped") for line in range(2, 102)),
    (A, 102, "900 rows more, from this one on", "row dropped"),
    counts={"train.rejected_rows": 1000},
    settings={"max_bad_share": 0.999},
)
kind(
    "normalised twice",
    every(*FOUR_LABELS, text="0 .0125 .02 .006 .01\n"),
    refused="4 of 4 boxes are smaller than a pixel (ingest.max_bad_share = 0.05): coordinates look normalised twice",
    settings=STRICT,
)
kind("val without a box", lambda r: put(r / "labels/val/e.txt", ""), refused="val has no usable box, so that")
kind(
    "class ids from 1",
    both(labels(GOOD.replace("0", "1", 1) + "2 .2 .2 .1 .1\n")),
    (A, 2, "label class 2 exceeds dataset class count 2", "row dropped"),
    refused="class ids look counted from 1: class 0 never occurs, and labels/train/a.txt:2",
)
kind(
    "class in test alone",
    both(labels("1 .5 .5 .3 .3\n"), lambda r: put(r / "labels/test/g.txt", GOOD)),
    ("data.yaml", None, "class 0 (dirt) has boxes in test, and none in train", "noted"),
)
kind(
    "masks of another name",
    both(renamed("masks/test/g.png", "masks/test/g_mask.png")),
    ("masks/test/g_mask.png", None, "there is no image images/test/g_mask.*", "file ignored"),
    refused="1 of 1 masks are unusable (ingest.max_bad_share = 0.05): masks/test/g_mask.png: mask file",
    settings=STRICT,
)
TWELVE = encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 16))
kind(
    "12 bits in 16",
    image_file("x.png", TWELVE),
    ("data.yaml", None, "set ingest.white_level, such as 4095", "noted"),
    counts=FINE,
)
kind(
    "floats up to 0.25",
    image_file("x.tif", tiff(FLOATS / FLOATS.max() / 4)),
    ("data.yaml", None, "reach 25.0% of white and become dark: set ingest.white_level, such as 0.25", "noted"),
    counts=FINE,
)
kind("12 bits in 16, told", image_file("x.png", TWELVE), counts=FINE, settings=STRICT | {"white_level": 4095.0})

# Masks. A wrong one would give wrong scores: it is dropped and counted.

H = "masks/test/h.png"


def bad_mask(name: str, data: bytes, reason: str) -> None:
    counts = {"test.truth": 1, "test.rejected_masks": 1, "test.truth_missing": 1}
    kind(name, lambda root: put(root / H, data), (H, None, reason, "mask dropped"), counts=counts)


bad_mask("mask of the wrong size", encoded(Image.new("L", (80, 48))), "mask is 80 x 48, the upright image 40 x 24")
bad_mask("mask lying on its side", encoded(Image.new("L", (24, 40))), "mask is 24 x 40, the upright image 40 x 24")
bad_mask("mask with a value beyond the classes", encoded(Image.fromarray(truth() * 3)), "value 3, allowed are 0")
bad_mask("coloured mask", encoded(picture(1)), "PNG of mode RGB")
bad_mask("16-bit mask", encoded(Image.fromarray(truth().astype(np.uint16))), "with 16 bits a sample")
bad_mask("1-bit mask", encoded(Image.fromarray(truth() > 0)), "with 1 bits a sample")
bad_mask("JPEG called mask", encoded(Image.fromarray(truth()), "jpeg"), "not a readable PNG")
bad_mask("zero-byte mask", b"", "not a readable PNG")
bad_mask("truncated mask", PNG[: len(PNG) // 2], "not a readable PNG")
bad_mask("decompression bomb as mask", png_bomb(), "mask is 60000 x 60000")
kind("link to a mask outside", link(H, "o.png", PNG), (H, None, f"{H} {OUT}", "mask dropped"))
kind(
    "orphan mask",
    lambda root: put(root / "masks/test/gone.png", encoded(Image.fromarray(truth()))),
    ("masks/test/gone.png", None, "mask file without an image", "file ignored"),
    counts={"orphan_masks": 1},
)
kind(
    "too many bad masks",
    lambda root: put(root / H, b""),
    (H, None, "not a readable PNG", "mask dropped"),
    refused="1 of 2 masks are unusable (ingest.max_bad_share = 0.05): masks/test/h.png: not a readable PNG",
    settings={"max_bad_share": 0.05},
)
kind(
    "black and white masks",
    lambda root: put(root / "masks/test/g.png", encoded(Image.fromarray((truth() > 0).astype(np.uint8) * 255))),
    refused="no mask holds a defect, though some hold 255, which means ignored: write class id + 1 instead",
)

# Names and data.yaml.

NAMED = {"train.images": 5, "train.boxes": 4}
kind("spaces and other letters in names", image_file("bläde 1, été «x».png", PNG), counts=NAMED)
kind("quotes and commas in names", image_file("a \"b\", 'c'.png", PNG), counts=NAMED)
kind(
    "line break in a name",
    image_file("new\nline.png", b""),
    ("images/train/new\\nline.png", None, "file name holds a control character", "image dropped"),
)
kind(
    "name that is no UTF-8",
    lambda root: put(Path(os.fsdecode(os.fsencode(root / "images/train") + b"/\xff.png")), PNG),
    ("images/train/\\udcff.png", None, "file name is not valid UTF-8", "image dropped"),
)
kind(
    "link to a folder outside",
    link("images/train/more", "outside", None),
    ("images/train/more", None, "link to a folder outside of the data root", "file ignored"),
    refused="images/train/more: link to a folder outside of the data root, so that what it holds would be lost",
)
FOLLOWED = ("images/train/more", None, "link to a folder, not followed", "file ignored")
kind(
    "link to a folder that no split names",
    both(
        lambda r: put(r / "extra/z.png", PNG),
        lambda r: (r / "images/train/more").symlink_to("../../extra"),
        lambda r: put(r / "labels/train/more/z.txt", GOOD),
    ),
    FOLLOWED,
    ("images/train/more/z.png", None, "behind a link to a folder, which is not followed", "image dropped"),
    refused="1 of 9 images are unusable, 1 of 5 label files are unusable, 1 of 6 label rows are lost (",
    settings=STRICT,
)
kind("link to a split", lambda r: (r / "images/train/more").symlink_to("../val"), FOLLOWED, settings=STRICT)
kind(
    "link to a split's folder outside",
    both(link("images/more", "outside", None), config(DATA_YAML.replace("images/train", "images/more"))),
    refused="train = 'images/more'",
)
kind(
    "link to a data.yaml outside",
    link("data.yaml", "other.yaml", DATA_YAML.encode()),
    refused=OUT,
)


def accepted(name: str, old: str, new: str, **more: object) -> None:
    assert old in DATA_YAML
    counts = {"train.images": 4, "train.boxes": 3, "val.images": 2} | more.pop("counts", {})
    kind(name, config(DATA_YAML.replace(old, new)), counts=counts, **more)


def refused(name: str, old: str, new: str, reason: str) -> None:
    assert old in DATA_YAML
    kind(name, config(DATA_YAML.replace(old, new)), refused=reason)


accepted("no path", "path: .\n", "")
accepted("trailing slashes and dots", "train: images/train", "train: ./images/train/")
accepted("Roboflow's extra ..", "train: images/train", "train: ../images/train")
accepted("list of folders", "train: images/train", "train: [images/train, images/train]")
accepted("names as mapping", "names: [dirt, damage]", "names: {0: dirt, 1: damage}")
accepted("names as mapping in disorder", "names: [dirt, damage]", "names:\n  1: damage\n  0: dirt")
accepted("names as mapping of strings", "names: [dirt, damage]", "names: {'0': dirt, '1': damage}")
accepted("names that are numbers", "names: [dirt, damage]", "names: [1, 2.5]")
accepted("names that YAML 1.1 takes for truth", "names: [dirt, damage]", "names: [yes, no]")
accepted("nc alone", "names: [dirt, damage]", "nc: 2")
accepted("nc and names", "names:", "nc: 2\nnames:")
accepted("keys that are not ours", "names:", "download: https://x\nroboflow: {version: 3}\nkpt_shape: [17, 3]\nnames:")
accepted("validation for val", "val: images/val", "validation: images/val")
accepted("no test", "test: images/test\n", "", counts={"test": None}, gone={"test/g", "test/h"})
accepted("test left empty", "test: images/test", "test: # none", counts={"test": None}, gone={"test/g", "test/h"})
accepted("data.yaml with a byte-order mark and CRLF", DATA_YAML, "\ufeff" + DATA_YAML.replace("\n", "\r\n"))
LISTED = DATA_YAML.replace("train: images/train", "train: train.txt")
NAMES = "".join(f"{{}}images/train/{stem}.png\n" for stem in "abcd")
LIST = {"train.images": 4, "train.boxes": 3}
kind("list file", both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", ""))), counts=LIST)
kind("list file with ./", both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", "./"))), counts=LIST)
kind(
    "list file, absolute",
    both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", f"{r}/"))),
    counts=LIST,
)
kind(
    "list of list files",
    both(
        config(DATA_YAML.replace("train: images/train", "train:\n  - one.txt\n  - images/train/../../two.txt")),
        lambda r: put(r / "one.txt", "\ufeffimages/train/a.png\r\nimages/train/b.png\r\n"),
        lambda r: put(r / "two.txt", "\n\nimages/train/b.png\nimages/train/c.png\nimages/train/d.png"),
    ),
    counts=LIST,
)
kind(
    "list file that leads out and nowhere",
    both(
        config(LISTED),
        lambda r: put(
            r / "train.txt", NAMES.replace("{}", "") + "../o.png\n/etc/o.png\nimages/gone.png\nima\0ge.png\n"
        ),
        lambda r: put(r.parent / "o.png", PNG),
    ),
    ("../o.png", None, OUT, "image dropped"),
    ("/etc/o.png", None, OUT, "image dropped"),
    ("ima\\x00ge.png", None, "file name holds a control character", "image dropped"),
    ("images/gone.png", None, "image file not found", "image dropped"),
    counts=LIST,
)
kind("list file that is a pipe", both(config(LISTED), pipe("train.txt")), refused="expected a folder or a .txt list")
kind(
    "list file without an image",
    both(config(LISTED), lambda r: put(r / "train.txt", "\n")),
    refused="no images found",
)
kind("absolute path inside", lambda r: put(r / "data.yaml", DATA_YAML.replace("path: .", f"path: {r}")), counts=LIST)
refused("absolute path outside", "path: .", "path: /etc", "path = '/etc': leads out of the data root")
accepted("path of Ultralytics' own folder", "path: .", "path: ../datasets/x")
accepted("path of another machine", "path: .", "path: /content/set")
accepted("path of Windows", "path: .", "path: C:\\data\\set")
accepted("path that is the folder's own name", "path: .", "path: set")
refused("split that leads out", "train: images/train", "train: ../../../etc", f"train = '../../../etc': {OUT}")
refused("split that is not there", "train: images/train", "train: images/trian", "trian does not exist")
refused("split that is a file", "train: images/train", "train: data.yaml", "expected a folder or a .txt list of images")
refused("split that is a number", "train: images/train", "train: 7", "train = '7': ")
refused("no train", "train: images/train\n", "", "no `train`: a folder, a list of folders or a .txt list of images")
refused("no val", "val: images/val\n", "", "no `val`: ")
refused("no names", "names: [dirt, damage]", "", "names = None: expected a list of class names")
refused(
    "names with a hole", "names: [dirt, damage]", "names: {0: a, 2: b}", "expected a list of class names, or a mapping"
)
refused("two classes of one name", "names: [dirt, damage]", "names: [a, a]", "two classes have one name")
refused("nc against names", "names:", "nc: 3\nnames:", "nc = 3, but names has 2 classes")
refused(
    "255 classes",
    "names: [dirt, damage]",
    "nc: 255\nnames: [" + ", ".join(f"c{i}" for i in range(255)) + "]",
    "at most 254",
)
accepted("tag that would run code", "names: [dirt, damage]", "names: !!python/object/apply:os.system [id, ls]")
refused("data.yaml with one key twice", "path: .", "path: .\npath: .", "cannot be read as YAML")
refused("empty data.yaml", DATA_YAML, "", "expected a mapping with `names`, `train` and `val`")
refused("data.yaml that is no YAML", DATA_YAML, "{[", "cannot be read as YAML")
refused("data.yaml of brackets", DATA_YAML, "[" * 9999, "cannot be read as YAML")
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
kind(
    "data.yaml of aliases without end",
    config(ALIASES + DATA_YAML.replace("[dirt, damage]", "*a11")),
    refused="names = ",
)
kind(
    "data.yaml in Latin-1",
    lambda r: put(r / "data.yaml", DATA_YAML.replace("dirt", "é").encode("latin-1")),
    refused="as YAML",
)
kind("no data.yaml", lambda r: (r / "data.yaml").unlink(), refused="not found; data.root must be the folder that holds")
kind("data.yaml that is a pipe", pipe("data.yaml"), refused="not found; data.root must be the folder that holds")

# Paths, optional things, and files of other names.

kind(
    "list from Windows",
    both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", "").replace("/", "\\"))),
    counts=LIST,
)
kind(
    "list of another machine",
    both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", "/content/set/"))),
    counts=LIST,
)
kind(
    "list of CVAT",
    both(config(LISTED), lambda r: put(r / "train.txt", NAMES.replace("{}", "data/"))),
    counts=LIST,
)
accepted("split from Windows", "train: images/train", "train: images\\train")
accepted("names of truth values", "names: [dirt, damage]", "names: [true, false]")
NO_TEST = {"counts": {"test": None}, "gone": {"test/g", "test/h"}}
kind(
    "test that is not there",
    config(DATA_YAML.replace("test: images/test", "test: ../test/images")),
    ("data.yaml", None, "not there, so there is no test split", "noted"),
    **NO_TEST,
)
kind("dataset.yaml", renamed("data.yaml", "dataset.yaml"), settings=STRICT)
kind("a YAML file of any name", renamed("data.yaml", "cracks.yml"), settings=STRICT)
kind(
    "two YAML files",
    both(renamed("data.yaml", "a.yaml"), lambda r: put(r / "b.yaml", DATA_YAML)),
    refused="holds 2 YAML files (a.yaml, b.yaml): set data.root to the one to use",
)
kind(
    "images, labels and classes.txt alone",
    both(lambda r: (r / "data.yaml").unlink(), lambda r: put(r / "classes.txt", "dirt\ndamage\n")),
    refused='{train: images/train, val: images/val, test: images/test, names: ["dirt", "damage"]}',
)
refused("class name with an escape sequence", "[dirt, damage]", '["di\\e[2Jrt", damage]', "holds a control character")
refused("class name of half a pair", "[dirt, damage]", '["di\\ud800rt", damage]', "data.yaml")
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
kind("data.yaml of merge keys without end", config(MERGED + DATA_YAML), counts=LIST)
kind("data.yaml of a megabyte", config(DATA_YAML + "#" * (1 << 20)), refused="bytes, allowed are 262,144")
kind(
    "list of millions of lines",
    both(config(LISTED), lambda r: put(r / "train.txt", "x\n" * 1_100_000)),
    refused="1,100,001 lines, allowed are 1,000,000",
)


def two_sites(root: Path) -> None:
    for class_id, site in enumerate("AB"):
        for number in range(4):
            put(root / f"site{site}/images/img_{number}.png", encoded(picture(ord(site) * 10 + number)))
            put(root / f"site{site}/labels/img_{number}.txt", f"{class_id} .5 .5 .3 .3\n")
    put(root / "data.yaml", DATA_YAML.replace("images/train", "[siteA/images, siteB/images]"))


SITES = {"gone": {f"train/{stem}" for stem in "abcd"}, "counts": {"train.images": 8, "train.boxes": 8}}
kind("the same names in two folders", two_sites, settings=STRICT, **SITES)


# Leakage.

SAME = ("images/train/b.png", None, "same bytes as images/test/copy.png")
COPY = {"cross_split_duplicates": 1, "first_duplicates": [["images/test/copy.png", "images/train/b.png"]]}


def copy_b(root: Path) -> None:
    put(root / "images/test/copy.png", (root / "images/train/b.png").read_bytes())


def retaken(again: str) -> Callable[[Path], None]:
    """An image in train, and at `again` the same one smaller, brighter and as a JPEG of poor quality."""

    def build(root: Path) -> None:
        image = picture(50).resize((400, 240), Image.Resampling.BICUBIC)
        put(root / "images/train/x.png", encoded(image))
        small = image.resize((200, 120), Image.Resampling.BICUBIC).point(lambda level: min(255, level * 1.1))
        put(root / again, encoded(small, "jpeg", quality=40))

    return build


kind(
    "the same image in train and test",
    copy_b,
    (*SAME, "stage stopped"),
    counts=COPY,
    refused="lie in more than one split",
)
kind(
    "the same image in train and test, to be reported",
    copy_b,
    (*SAME, "image kept"),
    counts=COPY | {"test.images": 3},
    settings={"duplicates": "report"},
)
kind(
    "the same file in two lists",
    both(
        config(LISTED.replace("test: images/test", "test: train.txt")),
        lambda r: put(r / "train.txt", NAMES.replace("{}", "")),
    ),
    *((f"images/train/{stem}.png", None, f"same bytes as images/train/{stem}.png", "stage stopped") for stem in "abcd"),
    refused="4 images lie in more than one split",
)
kind("the same image twice in train", lambda r: put(r / X.format("png"), (r / "images/train/b.png").read_bytes()))
kind(
    "nearly the same image in train and test",
    retaken("images/test/again.jpg"),
    counts={"near_duplicates": 1, "test.images": 3},
)
kind("nearly the same image twice in train", retaken("images/train/again.jpg"), counts={"near_duplicates": 0})


def plain(level: int) -> bytes:
    """One grey, but for a corner of ten more levels: there is too little to compare."""
    image = Image.new("L", SIZE_WH, level)
    image.putpixel((0, 0), level + 10)
    return encoded(image)


PLAIN = (lambda r, s=s, i=i: put(r / f"images/{s}/blank.png", plain(i)) for i, s in enumerate(("train", "val", "test")))
kind(
    "nearly blank images in every split",
    both(*PLAIN),
    counts={"near_duplicates": 0, "too_plain_to_compare": 3},
)


def make_hostile(root: Path) -> None:
    """Files beside the images that a reader would wait for, never finish, or stop at."""
    images = root / "images/train"
    os.mkfifo(images / "pipe.png")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "gone.png").symlink_to("nowhere")
    with (images / "sparse.png").open("w") as file:
        file.truncate(20 << 30)
    # A socket's address holds 107 bytes, the path of a test's folder may be longer.
    with socket.socket(socket.AF_UNIX) as server, chdir(images):
        server.bind("socket.png")
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.png")).write_bytes(b"no image")
    (images / "folder").symlink_to(root / "labels")
