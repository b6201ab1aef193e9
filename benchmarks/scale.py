"""One machine against a Ray cluster: rasterize in this process, with one and two workers, and with a node that dies.

    python -m benchmarks.scale --images 120 --out scale

Needs the group `cluster`. The data set and the tiny teacher are those of benchmarks/growth.py. Each worker is a node of
its own on the loopback, with one slot, pinned to a core of its own where there is one, which the driver shares. Writes
scale.json and scale.md: seconds, CPU seconds and peak memory of driver, workers and Ray itself. What a shard costs
apart from its images is seen in runs with shards of two sizes and all answers cached.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.growth import measured, write_project
from benchmarks.markdown import table
from benchmarks.pipeline_copy import ROOT, command
from stages.common.files import sha256_file

LARGE, SMALL = 10, 1
"""Images per shard."""

RUNS = {
    "local": (0, LARGE, False),
    "1 node": (1, LARGE, False),
    "1 node, cached": (1, LARGE, True),
    "1 node, cached, small shards": (1, SMALL, True),
    "local, cached": (0, LARGE, True),
    "local, cached, small shards": (0, SMALL, True),
    "2 nodes": (2, LARGE, False),
    "2 nodes, one dies": (2, LARGE, False),
}
"""Number of Ray nodes with one slot each, images per shard, and whether the teacher's answers are there already."""

NONE = (False, 0.0, 0.0)


@contextmanager
def pinned(cores: list[int]) -> Iterator[None]:
    """Processes that are started inside run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def cluster_of(count: int, cores: list[int]):
    """Yields a cluster with `count` nodes of one slot each and a head without a slot, and the list of these nodes."""
    from ray.cluster_utils import Cluster

    how = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster, nodes = Cluster(True, head_node_args={**how, "num_cpus": 0, "node_ip_address": "127.0.0.2"}), []
    try:
        for number in range(count):
            with pinned([cores[number % len(cores)]]):
                nodes.append(cluster.add_node(**how, num_cpus=1, node_ip_address=f"127.0.0.{3 + number}"))
        yield cluster, nodes
    finally:
        cluster.shutdown()


def descendants(process: int) -> list[int]:
    """Ids of all descendants of a process."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):  # Ray starts workers from several threads
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [one for child in map(int, thread.read_text().split()) for one in (child, *descendants(child))]
    return found


def spent(process: int) -> tuple[bool, float, float] | None:
    """Whether it is a worker of Ray, CPU seconds and peak resident MB of a process; None when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{process}/status").read_text()
        worker = Path(f"/proc/{process}/cmdline").read_bytes().startswith((b"ray::_do", b"ray::IDLE"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return worker, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak / 1024


def on_ray(project: Path, environment: dict[str, str], count: int, cores: list[int], kill: bool) -> dict[str, float]:
    """Rasterize with `count` nodes; with `kill` one dies after three shards."""
    staging, seen = project / ".dvc/tmp/boxes2pixels/shards", {}
    with ExitStack() as stack:
        cluster, nodes = stack.enter_context(cluster_of(count, cores))
        errors = stack.enter_context(tempfile.TemporaryFile())
        words = [*command("rasterize"), "--engine", "ray", "--ray-address", cluster.address]
        began = time.monotonic()
        driver = subprocess.Popen(words, cwd=project, env=environment, stdout=errors, stderr=errors)
        while not (ended := os.wait4(driver.pid, os.WNOHANG))[0]:
            now = {process: spent(process) for process in descendants(os.getpid()) if process != driver.pid}
            for process, one in now.items():  # one that has ended has neither a name nor memory any more
                seen[process] = tuple(map(max, one or NONE, seen.get(process, NONE)))
            if kill and len(list(staging.rglob("done.json"))) >= 3:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                kill = False
            time.sleep(0.1)
        seconds, (_, status, usage) = time.monotonic() - began, ended
        driver.returncode = os.waitstatus_to_exitcode(status)
        if status:
            errors.seek(0)
            sys.exit(errors.read().decode()[-3000:])
    workers = [one for one in seen.values() if one[0]]
    parts = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "worker_cpu_seconds": sum(cpu for _, cpu, _ in workers),
        "ray_cpu_seconds": sum(cpu for worker, cpu, _ in seen.values() if not worker),
        "peak_mb": usage.ru_maxrss / 1024,
        "worker_peak_mb": max((peak for _, _, peak in workers), default=0),
    }
    return {name: round(value, 1) for name, value in parts.items()}


def rasterized(project: Path, name: str, cores: list[int]) -> dict[str, float]:
    """One of RUNS, from an empty work folder or with the answers of the run before."""
    count, size, cached = RUNS[name]
    shutil.rmtree(project / ".dvc/tmp" / ("boxes2pixels/shards" if cached else "."), ignore_errors=True)
    params = project / "params.yaml"
    lines = params.read_text().splitlines()
    params.write_text("\n".join(f"  shard_size: {size}" if "shard_size:" in line else line for line in lines) + "\n")
    environment = {**os.environ, "DVC_ROOT": str(project)}
    with pinned(cores[: max(count, 1)]):
        if count:
            return on_ray(project, environment, count, cores, "dies" in name)
        return measured(command("rasterize"), project, environment)


def hashes(project: Path) -> dict[str, str]:
    """SHA-256 of every mask file."""
    return {str(path): sha256_file(path) for path in sorted((project / "data/masks").rglob("*.parquet"))}


def main(
    images: Annotated[int, typer.Option(help="Number of images.")] = 120,
    out: Annotated[Path, typer.Option(help="Name of the two files, without suffix.")] = Path("scale"),
) -> None:
    """Measure in a temporary folder."""
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    results, wanted, cores = {}, {}, sorted(os.sched_getaffinity(0), reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        with pinned(cores[:1]):
            write_project(project, images)
            for stage in ("ingest", "trust"):
                measured(command(stage), project, {**os.environ, "DVC_ROOT": str(project)})
        for name, (_, size, _) in RUNS.items():
            results[name] = rasterized(project, name, cores)
            results[name]["same bytes"] = hashes(project) == wanted.setdefault(size, hashes(project))
            typer.echo(f"{name}: {results[name]}", err=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    rows = ((name, ", ".join(f"{key} {value}" for key, value in own.items())) for name, own in results.items())
    out.with_suffix(".md").write_text("\n".join(table(("run", ""), rows)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    typer.run(main)
