"""Each run's plan holds what that run uses and nothing else."""

import hashlib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import load_params
from stages.plan import Params, main, resolve
from stages.training.config import Plan
from tests.support.tiny_project import write_data_set

ROOT = Path(__file__).parent.parent


def params(tmp_path, **changes) -> Params:
    """The project's own parameters with some keys changed, e.g. selfcorr={"tau": 0.8}."""
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        tree[section] = {**tree[section], **values}
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        YAML().dump(tree, file)
    return load_params(Params, path)


@pytest.mark.parametrize(("section", "key", "value"), [("train", "epochs", 10**26), ("train", "batch_size", 10**9)])
def test_what_no_training_can_do_is_refused(tmp_path, section, key, value):
    with pytest.raises(UserError, match=rf"{section}\.{key} = 1\d+: .*less than or equal to"):
        params(tmp_path, **{section: {key: value}})


def test_seeds_have_63_bits(tmp_path):
    for seed, allowed in ((2**63 - 1, True), (2**64, False)):
        text = (ROOT / "params.yaml").read_text().replace("seeds: [0]", f"seeds: [{seed}]")
        (tmp_path / "params.yaml").write_text(text)
        if allowed:
            assert load_params(Params, tmp_path / "params.yaml").seeds == [seed]
        else:
            with pytest.raises(UserError, match=r"seeds\.0 = 18446744073709551616: .*less than"):
                load_params(Params, tmp_path / "params.yaml")


def test_a_changed_plan_is_no_plan(tmp_path):
    main(tmp_path / "plan", tmp_path / "checked.txt", ROOT / "params.yaml")
    path = tmp_path / "plan/boxes2pixels.json"
    assert load_params(Plan, path) == resolve(load_params(Params, ROOT / "params.yaml"), "boxes2pixels")
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 17]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"; run the plan stage again$"):
            load_params(Plan, path)


def plans(tmp_path, **changes) -> dict[str, str]:
    values = params(tmp_path, **changes)
    return {name: resolve(values, name).model_dump_json() for name in values.runs}


def changed_by(tmp_path, **changes) -> set[str]:
    before, after = plans(tmp_path), plans(tmp_path, **changes)
    return {name for name in after if before.get(name) != after[name]}


BOXES2PIXELS = {"boxes2pixels", "no_detail", "no_binary", "no_selfcorr"}
METHODS = {"two_sided", "gce", "sce", "nc", "boxinst", "discobox", "boxteacher", "boxseg", "oracle"}
STUDENTS = BOXES2PIXELS | METHODS
BASELINES = {"unet", "deeplabv3", "segformer"}
ALL = STUDENTS | BASELINES
UNET = {
    "architecture": "baseline",
    "design": "unet",
    "encoder": "mobilenet_v2",
    "encoder_weights": None,
    "decoder_width": 128,
}


def test_tau_reaches_exactly_the_runs_that_self_correct(tmp_path):
    assert changed_by(tmp_path, selfcorr={"tau": 0.85}) == BOXES2PIXELS - {"no_selfcorr"}


def test_beta_reaches_exactly_the_runs_with_a_binary_head(tmp_path):
    others = {"two_sided", "oracle", "gce", "sce"}  # nc's binary head has no asymmetric Dice
    assert changed_by(tmp_path, loss={"beta": 0.5}) == BOXES2PIXELS - {"no_binary"} | others


def test_width_reaches_every_student_and_no_baseline(tmp_path):
    assert changed_by(tmp_path, network={"width": 64}) == STUDENTS


def test_how_images_are_loaded_reaches_no_run(tmp_path):
    assert changed_by(tmp_path, loading={"workers": 7}) == set()


def test_one_parameter_gives_a_baseline_self_correction(tmp_path):
    own = params(tmp_path).runs["unet"]
    values = params(tmp_path, runs={"unet": {**own, "selfcorr": {"enabled": True}}})
    assert resolve(values, "unet").supervision["selfcorr"] == resolve(values, "boxes2pixels").supervision["selfcorr"]


def test_a_baseline_has_no_key_of_the_student_and_no_binary_head(tmp_path):
    for name in BASELINES:
        plan = resolve(params(tmp_path), name)
        assert (plan.network["architecture"], plan.network["design"]) == ("baseline", name)
        assert "width" not in plan.network
        assert [plan.supervision[key] for key in ("binary", "beta", "selfcorr")] == [None, None, None]


def test_a_plan_holds_the_hashes_of_its_method_and_its_network_and_of_no_other(tmp_path):
    code = {name: set(resolve(params(tmp_path), name).code) for name in ("boxseg", "unet")}
    assert code == {
        "boxseg": {"methods/boxseg", "networks/student"},
        "unet": {"methods/boxes2pixels", "networks/baseline"},
    }
    source = ROOT / "stages/methods/boxseg.py"
    wanted = hashlib.sha256(source.read_bytes()).hexdigest()
    assert resolve(params(tmp_path), "boxseg").code["methods/boxseg"] == wanted


def test_a_new_run_changes_no_other(tmp_path):
    assert changed_by(tmp_path, runs={"wide": {"network": {"width": 128}}}) == {"wide"}


def test_an_ablation_differs_from_the_full_method_in_one_thing(tmp_path):
    values = params(tmp_path)
    full = resolve(values, "boxes2pixels").model_dump()
    for name, wanted in {
        "no_detail": {"network"},
        "no_binary": {"network", "supervision"},
        "no_selfcorr": {"supervision"},
        "two_sided": {"supervision", "code"},
    }.items():
        ablated = resolve(values, name).model_dump()
        assert {section for section in full if full[section] != ablated[section]} == wanted
    assert resolve(values, "no_selfcorr").supervision["selfcorr"] is None
    assert resolve(values, "no_binary").supervision["beta"] is None


def test_a_method_is_told_what_it_has_a_use_for_of_the_shared_sections(tmp_path):
    values = params(tmp_path, loss={"fine": 0.6, "binary": 0.7, "beta": 0.3})
    two_sided, boxseg = (resolve(values, run).supervision for run in ("two_sided", "boxseg"))
    assert (two_sided["fine"], two_sided["binary"], two_sided["beta"]) == (0.6, 0.7, 0.3)
    assert (boxseg["fine"], boxseg["binary"]) == (0.6, 0.7)
    alone = params(tmp_path, runs={"alone": {**values.runs["boxseg"], "network": {"binary": False}}})
    assert resolve(alone, "alone").supervision["binary"] is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"studnet": {"width": 64}}, r"runs\.bad: studnet is not a section"),
        ({"network": {"widht": 64}}, r"runs\.bad: network\.widht"),
        ({"selfcorr": {"tau": 2}}, r"runs\.bad: selfcorr\.tau = 2: .*less than 1"),
        ({"loss": {"beta": None}}, r"loss\.beta must be numbers"),
        (
            {"supervision": {"method": "boxsnake"}},
            r"supervision\.method = 'boxsnake': allowed are boxes2pixels, boxinst",
        ),
        ({"supervision": {"method": ["a"]}}, r"supervision\.method = \['a'\]: allowed are boxes2pixels"),
        ({"supervision": {"method": "two_sided", "warmup": 0.3}}, r"supervision\.believed is missing"),
        ({"supervision": {"tau": 0.9}}, r"supervision\.tau = 0\.9: Extra inputs"),
        ({"network": {"architecture": "unit"}}, r"runs\.bad: network\.architecture = 'unit': allowed are baseline, st"),
        ({"network": {**UNET, "encoder": "resnet19"}}, r"network\.encoder = 'resnet19': .*'resnet18'"),
        ({"network": {**UNET, "design": "deeplabv3", "encoder": "mit_b2"}}, r"encoder mit_b2: deeplabv3 needs"),
        (
            {"network": {**UNET, "design": "deeplabv3"}, "train": {"batch_size": 1}},
            r"train\.batch_size = 1: .*2 or more",
        ),
    ],
)
def test_a_wrong_override_names_the_run_and_the_key(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        resolve(params(tmp_path, runs={"bad": override}), "bad")


def test_planning_again_writes_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        main(tmp_path / folder, tmp_path / "checked.txt", ROOT / "params.yaml")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(f"{name}.json" for name in ALL)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def planned(tmp_path, **changes) -> None:
    params(tmp_path, **changes)
    main(tmp_path / "plan", tmp_path / "checked.txt", tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"root": "SET/gone"}}, r"gone/data\.yaml: not found; data\.root must be the folder"),
        ({"data": {"manifest": "gone.parquet"}}, r"params\.yaml: data\.manifest = gone\.parquet: no such file$"),
        ({"data": {"root": "SET", "trusted": "gone"}}, r"params\.yaml: data\.trusted = gone: no such file or folder"),
        (
            {"data": {"root": "SET"}, "runs": {"boxes2pixels": {"supervision": {"method": "truth"}}}},
            r"rows: boxes2pixels \(supervision\.method = truth\) needs .*: set data\.trusted",
        ),
        (
            {"data": {"root": "SET"}, "loss": {"class_weights": [1.0, 2.0, 3.0, 4.0]}},
            r"loss\.class_weights = \[1\.0, 2\.0, 3\.0, 4\.0\]: needs 3 numbers",
        ),
    ],
)
def test_what_the_files_that_are_there_rule_out_is_refused_before_any_work(tmp_path, changes, message):
    write_data_set(tmp_path / "set", {"train": 1, "val": 1})
    root = changes["data"].get("root", "SET").replace("SET", str(tmp_path / "set"))
    with pytest.raises(UserError, match=message):
        planned(tmp_path, **changes | {"data": changes["data"] | {"root": root}})
    assert not (tmp_path / "checked.txt").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"root": "data/demo"}},  # synthesize will make it
        {"data": {"root": "s3://bucket/none"}},
        {"data": {"root": "gone", "manifest": __file__}},
        {"ingest": {"polygons": "trust"}, "runs": {"boxes2pixels": {"supervision": {"method": "truth"}}}},
    ],
)
def test_what_a_later_stage_makes_or_the_network_holds_is_not_looked_for(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    planned(tmp_path, **changes)
    assert (tmp_path / "checked.txt").exists()
