"""An exported model runs without anything of ours: its metadata, and the program in docs/predict.md that reads it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from PIL import Image

from stages import predict
from stages.common.errors import UserError
from stages.common.params import write_digests
from stages.data.tables import decode_label_map
from stages.formats.writers import Format
from stages.runtime.graphs import embed, to_onnx, to_openvino
from stages.runtime.metadata import SECTION, Metadata, metadata_of, read_metadata
from stages.runtime.network import open_network
from stages.student.decision import ARGMAX, Decision
from tests.support.tiny_student import SIZES_HW, decided_student, image_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/predict.md").read_text()
PROGRAM, FOR_THRESHOLDS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


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
    assert len([line for line in PROGRAM.splitlines() if line]) <= 20
    assert set(re.findall(r"(?:^|import |from |, )(numpy|onnxruntime|PIL|stages|torch)\b", PROGRAM)) <= {
        *("numpy", "onnxruntime", "PIL")
    }
    same_masks(PROGRAM, models[0] / "onnx", tmp_path)


def test_with_the_lines_in_the_docs_it_follows_an_operating_point(models, tmp_path):
    decision = Decision(thresholds=[0.2, 0.7], temperature=2.0)
    model = tmp_path / "model/student.onnx"
    model.parent.mkdir()
    shutil.copy(models[0] / "onnx/student.onnx", model)
    embed(model, models[1].model_copy(update=decision.model_dump()))
    write_digests(model.parent)
    assert open_network(model.parent, "cpu").decision == decision
    same_masks("\n".join(PROGRAM.splitlines()[:-1]) + "\n" + FOR_THRESHOLDS, model.parent, tmp_path)


def same_masks(program: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
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
        words = [model / "student.onnx", f"images/{index}.png", f"{index}.png"]
        done = subprocess.run(
            [sys.executable, "-I", "program.py", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        ours = decode_label_map((tmp_path / f"ours/masks/{index}.png").read_bytes())
        assert ours.shape == (size_hw[::-1] if index == 3 else size_hw)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{index}.png")), ours)


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
