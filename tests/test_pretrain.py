"""Pre-training as a whole: parameters, optimiser, schedule, resuming after a kill."""

import json
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from stages.common.params import load_params
from stages.common.workdir import work_folder
from stages.pretrain import Params, main
from stages.pretraining import embedded_teacher
from stages.pretraining.embedded_teacher import Prompts, first_teacher
from stages.pretraining.pretrain_loop import optimizer_of, pretrain, schedule
from stages.training.checkpoint import save_state

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def params_file(folder: Path, **changed: int) -> Path:
    """data/weights/params.yaml with a training of seconds."""
    tree = YAML(typ="safe").load((ROOT / "data/weights/params.yaml").read_text())
    for section in tree.values():
        section |= {"steps": 4, "batch_size": 2, "snapshot_every": 2, "held_out": 6} | changed
    path = folder / "params.yaml"
    with path.open("w") as file:
        YAML().dump(tree, file)
    return path


def test_a_killed_training_resumes_and_ends_at_the_same_bytes(tmp_path, monkeypatch, capsys):
    params, loss = params_file(tmp_path), embedded_teacher.loss
    steps = []

    def make(project: str, kill_at: int | None = None) -> None:
        """Train in a project of its own; a kill comes in the step `kill_at`."""

        def counted(network, batch):
            steps.append(len(steps))
            if len(steps) == kill_at:
                raise KeyboardInterrupt
            return loss(network, batch)

        steps.clear()
        (tmp_path / project / ".dvc").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / project))
        monkeypatch.setattr(embedded_teacher, "loss", counted)
        main(params, tmp_path / project / "out", tmp_path / project / "metrics.json", device="cpu")

    def results(project: str) -> list[bytes]:
        files = ("out/model.safetensors", "out/config.json", "metrics.json")
        return [(tmp_path / project / file).read_bytes() for file in files]

    make("one")
    assert len(steps) == 4
    with pytest.raises(KeyboardInterrupt):
        make("two", kill_at=4)
    assert not (tmp_path / "two/out").exists()
    assert (work_folder() / "training/pretrain_teacher.pt").exists()
    make("two")
    assert len(steps) == 2
    assert "resuming from step 2" in capsys.readouterr().out
    assert results("one") == results("two")
    make("two")
    assert steps == []  # a finished training is not repeated
    assert results("one") == results("two")
    assert {value.dtype for value in load_file(tmp_path / "one/out/model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "one/metrics.json").read_text())["steps"] == 4


@pytest.mark.parametrize("spoil", ["other parameters", "not a snapshot"])
def test_a_snapshot_of_another_training_is_not_resumed(spoil, tmp_path, capsys):
    snapshot = tmp_path / "snapshot.pt"
    values = load_params(Params, params_file(tmp_path, steps=1)).teacher
    pretrain(first_teacher(CPU), values, snapshot)
    if spoil == "not a snapshot":
        snapshot.write_bytes(b"half a file")
    else:
        save_state(snapshot, {"identity": "another", "step": 1})
    pretrain(first_teacher(CPU), values, snapshot)
    said = capsys.readouterr()
    assert "starting over" in said.out or "damaged, computed again" in said.err


def test_muon_trains_the_matrices_of_the_blocks_and_adamw_the_rest():
    values = load_params(Params, ROOT / "data/weights/params.yaml").teacher
    sam = first_teacher(CPU)
    optimizer = optimizer_of(sam, values)
    assert [group["lr"] for group in optimizer.param_groups] == [values.muon_lr, values.lr]
    prompts = (Prompts(0)[number][:4] for number in (0, 1))
    embedded_teacher.loss(sam, [torch.stack(part) for part in zip(*prompts, strict=True)]).backward()
    optimizer.step()
    by_muon = {name for name, value in sam.named_parameters() if optimizer.state[value].get("use_muon")}
    matrices = {name for name, value in sam.named_parameters() if value.ndim == 2 and name.endswith("weight")}
    assert by_muon == {
        name for name in matrices if name.startswith(("image_encoder.blocks", "mask_decoder.transformer"))
    }
    assert {"image_encoder.blocks.0.mlp.fc1.weight", "mask_decoder.transformer.layers.1.mlp.lin2.weight"} < by_muon


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine():
    values = load_params(Params, ROOT / "data/weights/params.yaml").teacher
    factors = [schedule(step, values) for step in range(values.steps)]
    assert factors[0] == pytest.approx(1 / values.warmup_steps)
    assert max(factors) <= 1
    assert factors[values.steps // 2] == pytest.approx(0.5, abs=1e-3)
    assert factors[-1] == pytest.approx(0, abs=1e-5)


def test_the_embedded_teacher_is_small():
    assert (ROOT / "data/weights/embedded/teacher/model.safetensors").stat().st_size < 8_000_000
