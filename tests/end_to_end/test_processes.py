"""Trainings by several processes: the bits of one process, whatever ends them and however many go on."""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.common.errors import Stopped, UserError
from stages.student import plugins
from stages.student.config import NetworkConfig
from stages.training import class_weights, loop
from stages.training.micro_batches import mean_in_order
from stages.training.processes import ALONE, LAUNCHER, joined, relaunch
from tests.support import exchanging
from tests.support.forked import PATIENCE_S, in_two_processes
from tests.support.tiny_student import student
from tests.support.train_split import make_split, samples_of
from tests.support.trainings import NEVER, Watched, method_of, plan, train
from tests.test_methods import METHOD_RUNS, ROOT, of_project

EXCHANGING = exchanging.__name__
NETWORK_RUNS = ("unet", "deeplabv3", "segformer")
CASES = [
    *((run, 4) for run in ("boxes2pixels", *METHOD_RUNS)),
    *((run, 2) for run in ("boxes2pixels", "two_sided", *NETWORK_RUNS)),
]


@pytest.fixture(scope="module", autouse=True)
def few_frequency_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_weights, "FREQUENCY_SAMPLES", 16)
        yield


def network_of(run: str):
    if run not in NETWORK_RUNS:
        return student()
    torch.manual_seed(0)
    params = {**of_project(run).network, "decoder_width": 16}
    config = NetworkConfig(
        names=["dirt", "damage"],
        network=params,
        view=student().config.view,
        backbone=None,
        plan_sha256="0" * 64,
    )
    return plugins.load("networks", "baseline", "network").untrained(config, Path())


def supervision_of(run: str) -> dict:
    ours = of_project(run).supervision
    if run == "boxseg":
        return {**ours, "copy_paste": {**ours["copy_paste"], "min_quality": 0.0, "min_area_px": 1}}
    return {**ours, "warmup": 0.2} if run == "two_sided" else ours


def score(average) -> float:
    """Any other weights would have another one."""
    return -sum(value.double().abs().sum().item() for value in average.state_dict().values())


def trained(folder: Path, case=("boxes2pixels", 2), processes=ALONE, checkpoint=None, passed=lambda x: x, epochs=2):
    """SHA-256 of the weights, and the curves, of a training of `epochs` steps on batches of four."""
    (run, parts), split = case, make_split(folder)
    network = network_of(run)
    samples = Watched(samples_of(split, with_boxes=run in METHOD_RUNS, defect_share=0.9), passed)
    wanted = plan(network, epochs, supervision=supervision_of(run), batch_size=4, micro_batches=parts)
    result, history = train(network, samples, wanted, score, checkpoint, split, processes=processes)
    state = b"".join(value.numpy().tobytes() for value in result.state_dict().values())
    return hashlib.sha256(state).hexdigest(), history


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """Every case, by each of two processes."""
    folder, found = tmp_path_factory.mktemp("two"), []
    for result, _ in in_two_processes(
        folder, lambda processes: {case: trained(folder / f"set{processes.rank}", case, processes) for case in CASES}
    ):
        assert isinstance(result, dict), result
        found.append(result)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_end_at_the_bits_of_one(case, by_two, tmp_path):
    alone = trained(tmp_path, case)
    assert by_two[0][case] == by_two[1][case] == alone
    assert len(alone[1].epochs) == 2


def test_the_number_of_micro_batches_is_part_of_the_result(by_two, tmp_path):
    assert (
        len(
            {
                by_two[0]["boxes2pixels", 2][0],
                by_two[0]["boxes2pixels", 4][0],
                trained(tmp_path, ("boxes2pixels", 1))[0],
            }
        )
        == 3
    )
    with pytest.raises(ValueError, match="micro_batches = 3 does not divide batch_size = 4"):
        plan(student(), batch_size=4, micro_batches=3)


def test_a_mean_is_summed_in_order_and_equal_values_stay():
    rows = torch.tensor([[1e8, 0.1], [1.0, 0.1], [-1e8, 0.1]])
    # 1e8 + 1 is 1e8 in float32; and 0.1 + 0.1 + 0.1 divided by 3 is not 0.1
    assert mean_in_order(rows).tolist() == [0.0, rows[0, 1].item()]
    assert mean_in_order(rows[[0, 2, 1]])[0] == torch.tensor(1 / 3)


def test_micro_batches_draw_different_numbers_and_start_from_the_same_buffers(split):
    """Batch norm counts one batch per step, and each part of it draws its own dropout and copy-paste."""
    drawn = []

    class Drawing(type(method_of(plan(student())))):
        def augment(self, batch, progress, draw):
            drawn.append((draw.random(), torch.rand(()).item()))
            return batch

    network = student()
    wanted = plan(network, 2, batch_size=4, micro_batches=4)
    method = method_of(wanted)
    method.__class__ = Drawing
    scores = lambda average: {"val_miou_anom": score(average)}  # noqa: E731
    loop.fit(network, samples_of(split), wanted, method, scores, torch.device("cpu"))
    assert len(set(drawn)) == len(drawn) == 8
    counts = {int(value) for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts <= {1, 2}, "the best weights are those of one of two steps"


def sent_at(sample: int, number: int):
    """Sends signal `number` to this process when it loads its sample of that count."""
    count = iter(range(1, NEVER))

    def passed(value):
        if next(count) == sample:
            os.kill(os.getpid(), number)
        return value

    return passed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_that_one_process_ends_is_resumed_by_any_number_of_them(tmp_path, number, capfd):
    """Four steps; process 1 gets the signal while it loads the third, and both have the same to resume from."""
    checkpoint = tmp_path / "checkpoint"

    def ended(processes):
        passed = sent_at(5, number) if processes.rank else lambda value: value
        return trained(tmp_path / f"a{processes.rank}", ("two_sided", 2), processes, checkpoint, passed, epochs=4)

    (first, _), (second, status) = in_two_processes(tmp_path / "a", ended)
    if number == signal.SIGTERM:
        assert first == second == "Stopped: SIGTERM"
        at = 3  # the flag travels with the gradients of the step
    else:
        assert status == -signal.SIGKILL
        assert first.startswith("UserError: another process of this training has ended; run it again to resume (")
        at = 1  # the first checkpoint; the next is not due, since it would cost more than its share of the time
    kept = checkpoint.read_bytes()
    capfd.readouterr()
    (one, _), (two, _) = in_two_processes(
        tmp_path / "b",
        lambda processes: trained(tmp_path / f"b{processes.rank}", ("two_sided", 2), processes, checkpoint, epochs=4),
    )
    assert capfd.readouterr().err.count(f"resuming at step {at} ") == 1
    checkpoint.write_bytes(kept)
    alone = trained(tmp_path / "c", ("two_sided", 2), checkpoint=checkpoint, epochs=4)
    assert f"resuming at step {at} " in capfd.readouterr().err
    assert one == two == alone == trained(tmp_path / "d", ("two_sided", 2), epochs=4)


def test_all_processes_stop_early_at_the_same_step(tmp_path):
    """Process 1 looks at three images of which none fits, process 0 at as many that fit: only the sums stop them."""

    def stopped(processes):
        def validate(_) -> float:
            counts = processes.total(np.array([3, 3 * (processes.rank == 0)]))
            return counts[1] / counts[0]

        network = student()
        samples = samples_of(make_split(tmp_path / str(processes.rank)))
        wanted = plan(network, 6, batch_size=4, micro_batches=2, patience=2)
        return train(network, samples, wanted, validate, processes=processes)[1].validations

    (one, _), (two, _) = in_two_processes(tmp_path / "two", stopped)
    assert one == two
    assert [row["val_miou_anom"] for row in one] == [0.5] * 3, "the best, and two that are no better"


def test_counts_are_summed_and_a_signal_ends_all_validations(tmp_path):
    def counted(processes):
        sums = processes.total(np.array([[1, 2**53 + 1], [processes.rank, 0]]))
        processes.arrived.extend([signal.SIGINT] * processes.rank)
        with pytest.raises(Stopped) as stopped:
            processes.total(np.zeros(3, np.int64))
        return sums.tolist(), stopped.value.status

    for result, _ in in_two_processes(tmp_path / "two", counted):
        assert result == ([[2, 2**54 + 2], [1, 0]], 130)


@pytest.mark.parametrize("size", [3, 8])
def test_processes_that_do_not_divide_the_micro_batches_are_refused(monkeypatch, size):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": 1, "WORLD_SIZE": size, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError) as refused, joined(torch.device("cpu"), 4):
        pass
    assert str(refused.value) == f"train.micro_batches = 4: {size} processes do not divide it, allowed are 1, 2, 4"


def test_a_launcher_starts_the_processes_of_a_command_and_a_signal_ends_them_together(tmp_path):
    """Real torchrun, as `BOXES2PIXELS_LAUNCHER="torchrun --nproc-per-node 2"` lets `dvc repro` start it."""
    relaunching = f"from stages.training.processes import relaunch; relaunch({EXCHANGING!r}, [{str(tmp_path)!r}])"
    launcher = f"{shlex.quote(sys.executable)} -m torch.distributed.run --nproc-per-node 2"
    started = subprocess.Popen(
        [sys.executable, "-c", relaunching],
        cwd=ROOT,
        env={**os.environ, LAUNCHER: launcher, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + PATIENCE_S
    while len(list(tmp_path.glob("started*"))) < 2 and started.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    said = started.communicate(timeout=PATIENCE_S)[1]
    assert [path.read_text() for path in sorted(tmp_path.glob("stopped*"))] == ["SIGTERM at True True"] * 2, said
    assert said.count("stopped by SIGTERM; run it again to resume") == 2


def test_a_launcher_that_does_not_exist_is_one_line(monkeypatch):
    monkeypatch.setenv(LAUNCHER, "torchrum --nproc-per-node 2")
    with pytest.raises(SystemExit) as refused:
        relaunch("stages.train", [])
    assert refused.value.code == f"error: {LAUNCHER} = torchrum --nproc-per-node 2: No such file or directory"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    relaunch("stages.train", [])
