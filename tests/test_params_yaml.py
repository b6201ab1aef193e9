"""A wrong params.yaml is refused in one line that names key, value and what is allowed, before any work is done."""

import copy
import importlib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import Section, load_params
from stages.ingestion.config import DataParams
from stages.plan import main

ROOT = Path(__file__).parent.parent
PARAMS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
STAGES = ("synthesize", "weights", "ingest", "rasterize", "evaluate", "report")
"""Stages that read sections of their own; appraise and train read what other stages resolved."""


def leaves(tree: dict, above: tuple = ()) -> list[tuple]:
    """Every key that holds a value, as a path of keys; an empty mapping counts as a value."""
    found = []
    for key, value in tree.items():
        found += leaves(value, (*above, key)) if isinstance(value, dict) and value else [(*above, key)]
    return found


LEAVES = leaves({key: value for key, value in PARAMS.items() if key != "runs"})


def at(path: tuple) -> object:
    value = PARAMS
    for key in path:
        value = value[key]
    return value


def changed(path: tuple, value: object) -> dict:
    tree = copy.deepcopy(PARAMS)
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return tree


def write(folder: Path, tree: dict) -> None:
    YAML().dump(tree, folder / "params.yaml")


def refusal(folder: Path, tree: dict) -> str:
    """What the first stage says to `tree` as params.yaml; it must say one line and write nothing."""
    write(folder, tree)
    with pytest.raises(UserError) as caught:
        main(folder / "plan", folder / "checked.txt", folder / "params.yaml")
    assert sorted(path.name for path in folder.iterdir()) == ["params.yaml"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_value_of_another_type_is_refused_by_its_key(tmp_path, path):
    assert f"{'.'.join(path)}" in refusal(tmp_path, changed(path, {"no": "such thing"}))


@pytest.mark.parametrize("path", [path for path in LEAVES if type(at(path)) in (int, float)], ids=".".join)
def test_an_impossible_number_is_refused_by_key_and_value(tmp_path, path):
    for value in (-1, float("nan"), float("inf"), 1e300, "abc"):
        assert f"{'.'.join(path)} = {value!r}: " in refusal(tmp_path, changed(path, value))


@pytest.mark.parametrize("section", [key for key, value in PARAMS.items() if isinstance(value, dict) and key != "runs"])
def test_an_unknown_or_missing_key_is_refused_in_every_section(tmp_path, section):
    said = refusal(tmp_path, changed((section, "tpyo"), 1))
    assert f"{section}.tpyo = 1: " in said and "not permitted" in said
    tree = copy.deepcopy(PARAMS)
    key = next(iter(tree[section]))
    del tree[section][key]
    assert f"{section}.{key} is missing" in refusal(tmp_path, tree)
    assert f"{section} is missing" in refusal(tmp_path, {key: PARAMS[key] for key in PARAMS if key != section})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("slefcorr",), {"tau": 0.5}, "slefcorr = {'tau': 0.5}: Extra inputs are not permitted"),
        (("seeds",), [], "seeds = []: "),
        (("seeds",), [0, 0], "seeds = [0, 0]: each value may be listed once only"),
        (("seeds",), [0.5], "seeds.0 = 0.5: Input should be a valid integer"),
        (("seeds",), "abc", "seeds = 'abc': Input should be a valid list"),
        (("rows",), [], "rows = []: "),
        (("rows",), ["boxes2pixels", "boxes2pixels"], "each value may be listed once only"),
        (("rows",), ["boxes2pixels", "boxsnake"], "rows: boxsnake is not one of runs: boxes2pixels, no_detail"),
        (("runs",), {}, "runs = {}: "),
        (("runs",), 3, "runs = 3: "),
        (("runs",), {"No Good": {}}, "No Good"),
        (("runs",), {"a": {"network": {"widht": 8}}}, "runs.a: network.widht = 8: Extra inputs are not permitted"),
        (("runs",), {"a": {"selfcorr": {"tau": 2}}}, "runs.a: selfcorr.tau = 2: Input should be less than 1"),
        (("runs",), {"a": {"ingest": {}}}, "runs.a: ingest is not a section that a run can override: network, view"),
        (("loss", "class_weights"), [1.0, 1.0, 1e300], ".2 = 1e+300: Input should be less than or equal to 1000000"),
        (("rasterize", "min_view_px"), 10**9, "rasterize.min_view_px = 1000000000: Input should be less than"),
        (("ingest", "split", "group"), "(", "ingest.split.group = '(': not a regular expression"),
        (("ingest", "confidence"), 1.5, "ingest.confidence = 1.5: Input should be less than or equal to 1"),
        (("ingest", "white_level"), 0.0, "ingest.white_level = 0.0: Input should be greater than 0"),
        (("ingest", "polygons"), "trusts", "ingest.polygons = 'trusts': Input should be 'box'"),
        (("ingest", "split", "val"), 0.9, "their sum must be less than 1"),
    ],
)
def test_other_mistakes_are_refused(tmp_path, path, value, message):
    assert message in refusal(tmp_path, changed(path, value))


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_refuses_what_it_reads_when_it_runs_alone(tmp_path, name):
    model = importlib.import_module(f"stages.{name}").Params
    for section in model.model_fields:
        wrong = "abc" if section in ("rows", "seeds", "weights") else {**PARAMS[section], "tpyo": 1}
        write(tmp_path, {**PARAMS, section: wrong})
        with pytest.raises(UserError, match=rf"params\.yaml: {section}"):
            load_params(model, tmp_path / "params.yaml")


class DataOnly(Section):
    data: DataParams


@pytest.mark.parametrize(
    "root", ["/my sets/a b", "/sets/[north], (2)", "/sets/it's {here}=1", 'sets/12" pipes', "/a:b#c"]
)
def test_a_root_of_any_name_reaches_the_stage_through_dvcs_own_option(tmp_path, root):
    """What `-S 'data.root="..."'` does, by the function of DVC that does it."""
    from dvc.utils.hydra import apply_overrides

    write(tmp_path, PARAMS)
    escaped = root.replace("\\", "\\\\").replace('"', '\\"')
    apply_overrides(tmp_path / "params.yaml", [f'data.root="{escaped}"'])
    assert load_params(DataOnly, tmp_path / "params.yaml").data.root == root
