"""Licences of weights on the model card: of each name that can be given, as the docs say it."""

import re
from pathlib import Path

from stages.checkpoints import timm_backbone
from stages.checkpoints.hub_teacher import HUB
from stages.evaluation.card import LICENCES, UNKNOWN, licence_of
from stages.teacher.image_encoders import OFFICIAL

ROOT = Path(__file__).parent.parent


def test_each_name_of_weights_has_a_licence_and_no_other_name_has():
    teachers = {"embedded", *OFFICIAL, *HUB}
    assert LICENCES.keys() == teachers | {"efficientnet_lite0", *timm_backbone.SHA256}


def test_the_docs_say_the_same_of_each_teacher():
    table = re.findall(r"^\| (`.+?`) \| .+? \| (.+?) \|", (ROOT / "docs/teachers.md").read_text(), re.MULTILINE)
    told = {name: licence for names, licence in table for name in re.findall(r"`(.+?)`", names)}
    del told["weights.teacher"]
    assert told.keys() < LICENCES.keys() and len(told) == 14
    assert all(LICENCES[name].split(" ")[0] == licence for name, licence in told.items())


def test_of_a_file_of_ones_own_it_is_unknown():
    for name in ("weights/vit_b.pth", "/somewhere/embedded", "resnet18"):
        assert licence_of(name) == UNKNOWN
