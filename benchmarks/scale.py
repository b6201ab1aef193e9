"""One machine against a Ray cluster: rasterize in this process, with one and two workers, and with a node that dies.

    python -m benchmarks.scale --images 400 --shard-size 20 --out scale

Needs the group `cluster`. The data set and the tiny teacher are those of benchmarks/growth.py. Each worker is a node of
its own on the loopback, with one CPU, pinned to a core. Writes scale.json and scale.md: seconds, CPU seconds of driver
and workers, peak memory, overhead per shard; and from these what a cluster of GPUs would take, with its assumptions.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.growth import ROOT, command, measured, write_project
from stages.common.files import sha256_file

NODES = ("127.0.0.2", "127.0.0.3")
GPUS, IMAGES, SECONDS_PER_IMAGE, START_S = 64, 10**7, 0.15, 60
"""The paper model: SAM's vit_h at 0.15 s per image (assumed), a minute to start workers and load weights."""


@contextmanager
def nodes(count: int):
    """A cluster of `count` nodes with a slot each; yields it and the process ids of each node's raylet."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    how = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster, found = Cluster(True, head_node_args={**how, "num_cpus": 0, "node_ip_address": NODES[0]}), []
    for core in range(count):
        node = cluster.add_node(**how, node_ip_address=NODES[1])
        raylet = node.all_processes["raylet"][0].process.pid
        for process in (raylet, *below(raylet)):
            os.sched_setaffinity(process, {core % os.cpu_count()})
        found.append((node, raylet))
    try:
        yield cluster, found
    finally:
        cluster.shutdown()


def below(process: int) -> list[int]:
    """Ids of all descendants of a process."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [one for child in map(int, children) for one in (child, *below(child))]


def spent(process: int) -> tuple[float, float]:
    """CPU seconds and peak resident MB of a running process; zero when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak / 1024


def rasterized(project: Path, count: int, kill: bool = False) -> dict[str, float]:
    """Rasterize with `count` Ray workers, with none in process; with `kill` one node dies in the middle."""
    shutil.rmtree(project / ".dvc/tmp", ignore_errors=True)
    environment = {**os.environ, "DVC_ROOT": str(project), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = command("rasterize")
    if not count:
        return measured(["taskset", "-c", "0", *words], project, environment)
    with nodes(count) as (cluster, found):
        words += ["--engine", "ray", "--ray-address", cluster.address]
        began, workers = time.monotonic(), {}
        driver = subprocess.Popen(words, cwd=project, env=environment, stderr=subprocess.PIPE)
        staging = project / ".dvc/tmp/boxes2pixels/shards"
        while driver.poll() is None:
            memory = spent(driver.pid)[1]
            for _, raylet in found:
                workers |= {one: spent(one) for one in below(raylet) if spent(one)[0]}
            if kill and len(list(staging.rglob("done.json"))) >= 3:
                kill = cluster.remove_node(found.pop()[0], allow_graceful=False) is not None
            time.sleep(0.2)
        if driver.returncode:
            sys.exit(driver.stderr.read().decode()[-3000:])
        return {
            "seconds": round(time.monotonic() - began, 1),
            "worker_cpu_seconds": round(sum(cpu for cpu, _ in workers.values()), 1),
            "peak_mb": round(memory, 1),
            "worker_peak_mb": round(max(peak for _, peak in workers.values()), 1),
        }


def hashes(project: Path) -> dict[str, str]:
    """SHA-256 of every mask file."""
    return {str(path): sha256_file(path) for path in sorted((project / "data/masks").rglob("*.parquet"))}


def paper_model(shard_size: int, overhead_s: float) -> dict[str, float]:
    """Shards of IMAGES on GPUS, in rounds: hours, and the share of the time in which GPUs compute."""
    shards = -(-IMAGES // shard_size)
    rounds = -(-shards // GPUS)
    ideal = IMAGES * SECONDS_PER_IMAGE / GPUS
    wall = START_S + rounds * shard_size * SECONDS_PER_IMAGE + shards * overhead_s
    return {"shards": shards, "rounds": rounds, "hours": round(wall / 3600, 1), "efficiency": round(ideal / wall, 3)}


def main(
    images: Annotated[int, typer.Option(help="Number of images.")] = 400,
    shard_size: Annotated[int, typer.Option(help="Images per shard.")] = 20,
    out: Annotated[Path, typer.Option(help="Name of the two files, without suffix.")] = Path("scale"),
) -> None:
    """Measure in a temporary folder."""
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        write_project(project, images)
        text = (project / "params.yaml").read_text()
        (project / "params.yaml").write_text(
            "".join(
                f"  shard_size: {shard_size}\n" if line.startswith("  shard_size:") else line
                for line in text.splitlines(True)
            )
        )
        measured(command("ingest"), project, {**os.environ, "DVC_ROOT": str(project), "PYTHONPATH": str(ROOT)})
        wanted = None
        for name, count in (("local", 0), ("1 worker", 1), ("2 workers", 2), ("2 workers, one dies", 2)):
            results[name] = rasterized(project, count, kill="dies" in name)
            wanted = wanted or hashes(project)
            results[name]["same bytes"] = hashes(project) == wanted
            typer.echo(f"{name}: {results[name]}", err=True)
    shards = -(-images // shard_size)
    overhead = max(0.0, (results["1 worker"]["seconds"] - results["local"]["seconds"]) / shards)
    results["model"] = {"overhead per shard, s": round(overhead, 3)} | paper_model(256, overhead)
    out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"| {name} | {', '.join(f'{key} {value}' for key, value in own.items())} |" for name, own in results.items()
    ]
    out.with_suffix(".md").write_text("\n".join(["| run | |", "|---|---|", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    typer.run(main)
