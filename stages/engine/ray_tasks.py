"""Jobs as Ray tasks: one per shard, repeated without limit when a worker or a node dies.

A worker process opens the work once. The driver keeps twice as many tasks in flight as the cluster has slots and passes
results on as they finish, in any order. If the driver dies nothing is lost: finished shards stay in staging.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from types import ModuleType

from stages.common.errors import STOPPING, UserError
from stages.common.workdir import CODE, files_fingerprint
from stages.engine.shard_jobs import Done, Job, Work, Worker
from stages.engine.shard_store import ShardStore

LIBRARIES = ("numpy", "pillow", "pyarrow", "pycocotools", "scipy", "torch", "torchvision", "timm", "transformers")
"""Distributions that have to be the same on all machines; one that is missing has to be missing everywhere."""

_worker: list[Worker] = []
"""The worker of this process; not more than one, because its model may fill the GPU."""


def run_on_ray(
    work: Work, jobs: Iterable[Job], address: str | None, gpus: float, store: ShardStore | None = None
) -> Iterator[tuple[int, Done]]:
    """Do the jobs; each result comes with the number of its job, counted from 0.

    `address`: of a cluster, None: one is started on this machine; `gpus`: per task; `store`: where workers put finished
    shards, None: the driver sees their staging.
    Raises UserError where Ray is missing, does not answer, or a worker cannot do the work.
    """
    ray = _connected(address)
    resource, each = ("GPU", gpus) if gpus else ("CPU", 1)
    slots = int(ray.cluster_resources().get(resource, 0) / each)
    if not slots:
        raise UserError(f"--gpus-per-task {gpus}: the Ray cluster has no node with so much")
    task = ray.remote(max_retries=-1, max_calls=0, num_cpus=1, num_gpus=gpus)(_do)
    shared, here, waiting, running = ray.put(work), environment(), enumerate(jobs), {}
    while True:
        for number, job in islice(waiting, max(0, 2 * slots - len(running))):
            running[task.remote(shared, job, here, store)] = number
        if not running:
            return
        ready, _ = ray.wait(list(running))
        try:
            for one in ready:
                yield running.pop(one), ray.get(one)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError | OSError | MemoryError) else error from None


def _do(work: Work, job: Job, driver: dict[str, str], store: ShardStore | None = None) -> Done:
    """Do a job in a worker process. Raises UserError where it has other versions than the driver."""
    here = environment()
    if other := [f"{name} {here[name]} instead of {driver[name]}" for name in driver if here[name] != driver[name]]:
        raise UserError(f"the worker on {os.uname().nodename} has {', '.join(other)}: install the same everywhere")
    if not _worker or _worker[0].work != work:
        _worker[:] = [Worker(work, store)]
    return _worker[0](job)


@cache
def environment() -> dict[str, str]:
    """Versions of LIBRARIES, and the first 12 hex digits of the fingerprint of this project's code."""
    versions = {"boxes2pixels": files_fingerprint(sorted((CODE / "stages").rglob("*.py")))[:12]}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "no"
    return versions


def _connected(address: str | None) -> ModuleType:
    """The module `ray`, connected to a cluster until this process ends."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--engine ray needs the group cluster: uv pip install --group cluster ({error})") from None
    if ray.is_initialized():
        return ray
    address = address or os.environ.get("RAY_ADDRESS")
    # Ray replaces 127.0.0.1 by an address that can be reached from the network, but keeps 127.0.0.2
    alone = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.2"}
    try:
        ray.init(**({"address": address} if address else alone), logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where, reason = address or "this machine", " ".join(str(error).split())[:200]
        raise UserError(f"--ray-address {where}: no Ray cluster answers ({reason})") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has set its own
    return ray
