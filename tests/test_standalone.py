"""An exported model runs without anything of ours: its metadata, and the program in the README that reads it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from PIL import Image
from scipy import ndimage

from stages import predict
from stages.common.errors import UserError
from stages.common.params import write_digests
from stages.data.tables import decode_label_map
from stages.formats.writers import Format
from stages.runtime.graphs import embed, to_onnx, to_openvino
from stages.runtime.metadata import SECTION, Metadata, metadata_of, read_metadata
from stages.runtime.network import Network, open_network
from stages.student.decision import ARGMAX, Decision
from tests.support.tiny_student import SIZES_HW, decided_student, image_of

ROOT = Path(__file__).parent.parent
(PROGRAM,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
(DECIDES,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/predict.md").read_text(), re.DOTALL)
DECIDING = re.sub(r"assert not .*\nlabels = .*\n", lambda _: DECIDES, PROGRAM)
"""The program for students with an operating point, put together as docs/predict.md says."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Metadata]:
    """Folders `onnx` and `openvino`, sealed, without what else `export` writes beside the model."""
    root, student = tmp_path_factory.mktemp("models"), decided_student("native")
    about = metadata_of(student.config, ARGMAX, "0123456789ab", False, None, {"torch": "1"})
    for name in ("onnx", "openvino"):
        (root / name).mkdir()
    to_onnx(student, None, root / "onnx/student.onnx")
    embed(root / "onnx/student.onnx", about)
    to_openvino(root / "onnx/student.onnx", about, root / "openvino/student.xml")
    for name in ("onnx", "openvino"):
        write_digests(root / name)
    return root, about


def test_the_program_on_the_page_writes_the_mask_that_predict_writes(models, tmp_path):
    """Isolated: nothing of this project can be imported, and only the packages that the page names are."""
    assert len([line for line in PROGRAM.splitlines() if line]) <= 30
    assert set(re.findall(r"(?:^|import |from |, )(numpy|onnxruntime|PIL|stages|torch)\b", PROGRAM)) <= {
        *("numpy", "onnxruntime", "PIL")
    }
    same_masks(models[0] / "onnx", tmp_path, PROGRAM)


def test_it_follows_thresholds_and_least_areas_and_a_fixed_batch(models, tmp_path):
    decision = Decision(thresholds=[0.6, 0.3], least_area_px=[2, 6], temperature=2.0)
    model = tmp_path / "model/student.onnx"
    model.parent.mkdir()
    to_onnx(decided_student("native"), 3, model)
    embed(model, models[1].model_copy(update={"batch": 3, **decision.model_dump()}))
    write_digests(model.parent)
    network = open_network(model.parent, "cpu")
    assert network.decision == decision
    with_small = replace(network, decision=decision.model_copy(update={"least_area_px": None}))
    dropped = labels_of(with_small) != labels_of(network)
    assert dropped.any(), "least areas matter"
    assert (dropped != in_small_regions(labels_of(with_small), decision)).any(), "so do neighbours at a corner"
    same_masks(model.parent, tmp_path, DECIDING)
    (tmp_path / "mask.png").unlink()
    done = run(model.parent, "images/0.png", tmp_path, PROGRAM)
    assert done.returncode == 1 and done.stderr.endswith("has an operating point: see docs/predict.md\n")
    assert not (tmp_path / "mask.png").exists()


def labels_of(network: Network) -> np.ndarray:
    return network.predict(image_of(SIZES_HW[-1], seed=len(SIZES_HW) - 1))[0]


def in_small_regions(labels: np.ndarray, decision: Decision) -> np.ndarray:
    """(H, W) bool: which pixels least areas would drop if regions were 4-connected."""
    small = np.zeros(labels.shape, bool)
    for label, least in enumerate(decision.least_area_px, start=1):
        index, _ = ndimage.label(labels == label)
        small |= (index > 0) & (np.bincount(index.ravel())[index] < least)
    return small


def test_it_stops_at_what_it_does_not_cover(models, tmp_path):
    levels = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey16.png")
    done = run(models[0] / "onnx", "grey16.png", tmp_path, PROGRAM)
    assert done.returncode == 1 and done.stderr.endswith("for view.scale native and images of 8 bits\n")
    assert not (tmp_path / "mask.png").exists()


def same_masks(model: Path, tmp_path: Path, program: str) -> None:
    (tmp_path / "images").mkdir()
    for index, size_hw in enumerate(SIZES_HW):
        image = Image.fromarray(image_of(size_hw, seed=index))
        if index == 3:  # a grey image, rotated by its EXIF tag
            image = image.convert("L")
        exif = image.getexif()
        exif[0x0112] = 6 if index == 3 else 1
        image.save(tmp_path / f"images/{index}.png", exif=exif)
    predict.main([str(tmp_path / "images")], model, tmp_path / "ours", [Format.masks], device="cpu", force=False)
    for index, size_hw in enumerate(SIZES_HW):
        done = run(model, f"images/{index}.png", tmp_path, program)
        assert done.returncode == 0, done.stderr
        ours = decode_label_map((tmp_path / f"ours/masks/{index}.png").read_bytes())
        assert ours.shape == (size_hw[::-1] if index == 3 else size_hw)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), ours)


def run(model: Path, image: str, folder: Path, program: str) -> subprocess.CompletedProcess:
    """The `program`, on an image in `folder`; its mask is mask.png there."""
    (folder / "program.py").write_text(program)
    words = [sys.executable, "-I", "program.py", model / "student.onnx", image, "mask.png"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_both_files_carry_all_that_is_needed(models):
    root, about = models
    properties = onnxruntime.InferenceSession(root / "onnx/student.onnx").get_modelmeta().custom_metadata_map
    model = openvino.Core().read_model(root / "openvino/student.xml")
    for name, value in about.model_dump().items():
        assert json.loads(properties[name]) == value == json.loads(model.get_rt_info([SECTION, name]).astype(str))
    assert (about.names, about.size_px, about.scale, about.overlap) == (["dirt", "damage"], 56, "native", 0.25)
    assert about.plan_sha256 == "0" * 64
    for name in ("onnx", "openvino"):
        network = open_network(root / name, "cpu")
        found = network.names, network.view, network.decision, network.identity
        assert found == (about.names, about.view, ARGMAX, about.identity)


def test_a_file_without_our_metadata_is_one_clear_error(models, tmp_path):
    path = tmp_path / "student.onnx"
    model = onnx.load(models[0] / "onnx/student.onnx")
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"student\.onnx: holds no metadata of this project; export the student again"):
        open_network(tmp_path, "cpu")
    properties = models[1].as_properties()
    with pytest.raises(UserError, match=r"^m: metadata: size_px = 55: "):
        read_metadata({**properties, "size_px": "55"}, "m")
    with pytest.raises(UserError, match=r"^m: its metadata is not JSON"):
        read_metadata({**properties, "size_px": "5 5"}, "m")
    with pytest.raises(UserError, match=r"^m: metadata: names is missing"):
        read_metadata({"size_px": "56"}, "m")
    with pytest.raises(UserError, match=r"^m: metadata: thresholds holds 3 values, the student has 2 classes"):
        read_metadata({**properties, "thresholds": "[0.1, 0.2, 0.3]"}, "m")
    with pytest.raises(UserError, match=r"^m: metadata: thresholds\.1 = 1\.5: "):
        read_metadata({**properties, "thresholds": "[0.1, 1.5]"}, "m")
