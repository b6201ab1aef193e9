"""Serve a student over HTTP: POST an image, get its defects as JSON, its mask as PNG or an overlay as JPEG.

    python -m stages.serve --model data/models/RUN
    curl --data-binary @image.jpg '127.0.0.1:8000/predict?answer=mask' > mask.png

No stage depends on it, and it needs the group `serve`. Masks and overlays are the bytes that `stages.predict` writes;
docs/service.md has the routes and the limits. It listens on this machine alone unless --host says otherwise, and has
neither authentication nor encryption: where others can reach it, put a proxy in front.
"""

import math
from functools import partial
from ipaddress import ip_address
from typing import Annotated

import typer

from stages.common.errors import UserError, run
from stages.common.options import Device, Model
from stages.runtime.network import OperatingPoint, PointOption, open_network
from stages.service.inspection import Limits

HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""This machine in a request's header Host."""


def main(
    model: Model,
    device: Device = "auto",
    operating_point: PointOption = OperatingPoint.saved,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Largest upload, in MB.")] = 64.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest image, in millions of pixels.")] = 64.0,
    queue: Annotated[int, typer.Option(min=1, help="Most uploads at once; further ones are refused.")] = 32,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds from an upload's start to its answer.")] = 60.0,
) -> None:
    """Serve a student over HTTP."""
    try:
        import uvicorn

        from stages.service.application import application
    except ImportError as error:
        raise UserError(f"stages.serve needs the group serve, `uv pip install --group serve`: {error}") from None
    limits = Limits(int(max_upload_mb * 1e6), int(max_megapixels * 1e6), timeout_s, queue)
    app = application(open_network(model, device, operating_point), limits, answered(host))
    uvicorn.run(
        app,
        host=host,
        port=port,
        limit_concurrency=4 * queue + 16,  # connections, not uploads: /healthz needs one too
        timeout_graceful_shutdown=math.ceil(timeout_s),
        access_log=False,
        server_header=False,
        ws="none",
    )


def answered(host: str) -> tuple[str, ...]:
    """The header Host of requests that are answered by a service on `host`: on loopback names of this machine alone,
    so that no web page reaches it by DNS rebinding. Raises UserError for an empty `host`, which would be all addresses.
    """
    if not host:
        raise UserError("--host is empty: give an address, such as 127.0.0.1, or 0.0.0.0 for all of this machine's")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return (*HOSTS, host) if loopback else ("*",)


cli = partial(run, main)
"""The console command."""

if __name__ == "__main__":
    cli()
