"""`python -m benchmarks.speed`: all that it measures, on small networks."""

import json
import subprocess
import sys

from benchmarks import speed, students
from stages.teacher.sam import save_sam
from tests.support.tiny_teacher import TINY as TINY_TEACHER
from tests.support.tiny_teacher import tiny_sam
from tests.test_speed import ROOT

MEASURE = """
import json, sys
from pathlib import Path
from benchmarks import speed
from tests.test_speed import DEEPER, SIZE_PX
folder = Path(sys.argv[1])
speed.RASTERIZED = 2
found = speed.measure(DEEPER, SIZE_PX, 16, folder / "teacher", 1, folder / "work")
(folder / "found.json").write_text(json.dumps(found))
"""


def test_the_command_measures_everything_and_every_form_gives_the_masks_of_the_reference(tmp_path):
    """In a process of its own, so that the threads of four runtimes end with it."""
    save_sam(tmp_path / "teacher", tiny_sam(), TINY_TEACHER)
    subprocess.run([sys.executable, "-c", MEASURE, tmp_path], cwd=ROOT, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    forms = {row["name"]: row for row in found["student"] if "mask_agreement" in row}
    assert len(forms) == 11 and forms[students.PLAIN]["batch_1"]["ratio"] == 1
    for name, row in forms.items():
        assert row["mask_agreement"] > (0.95 if "INT8" in name else 0.9999), row
        assert row["largest_logit_difference"] < (1 if "INT8" in name else 1e-3), row
    assert [row["view"] for row in found["rasterize"]] == ["crop", "whole", "whole"] * 2
    assert all(row["ratio"] >= 1 for row in found["predict"])
    assert found["service"]["requests_a_second"] > 0
    assert [row["name"] for row in found["fields"]][:2] == ["defects, without sizes", "defects, with sizes"]
    text = speed.tables(found)
    for said in (
        "| OpenVINO, INT8 |",
        "| Lite0, OpenVINO, INT8 |",
        "| batch 1 |",
        "| SegFormer, MiT-B2 |",
        "threads on",
    ):
        assert said in text
