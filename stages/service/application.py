"""The service's routes: an image in, defects out. An error is answered with one line of text.

Nothing of an upload is written or logged, and nothing is fetched: the page carries its own style and script.
"""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from stages.common.errors import printable
from stages.data.decoding import BadImage, TooManyPixels
from stages.formats.scale import LARGEST
from stages.runtime.network import Network
from stages.service.exchange import Counters, Exchange
from stages.service.inspection import MEDIA_TYPES, Answer, Busy, Inspector, Limits

PATHS = frozenset({"/", "/predict", "/healthz", "/metrics"})

STATUSES = {
    BadImage: 400,
    ClientDisconnect: 400,
    TooManyPixels: 413,
    RequestValidationError: 422,
    Busy: 503,
    MemoryError: 503,
    TimeoutError: 504,
}


class Asked(BaseModel):
    """The options of a request for a prediction, its query."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    answer: Answer = Answer.json
    mm_per_px: float | None = Field(None, gt=0, le=LARGEST)


def application(network: Network, limits: Limits, hosts: Sequence[str]) -> FastAPI:
    """The service as an ASGI app. `hosts`: allowed values of a request's header Host; `*`: any."""
    inspector, counters = Inspector(network, limits), Counters(network.identity)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        inspector.close()

    # FastAPI's pages of the documentation load their script from a CDN; /openapi.json stays
    app = FastAPI(title="boxes2pixels", docs_url=None, redoc_url=None, lifespan=lifespan)
    # against DNS rebinding: a web page could otherwise reach the loopback address under its own host name
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Exchange, counters=counters, paths=PATHS)
    page = (Path(__file__).parent / "drop.html").read_text(encoding="utf-8")

    @app.post("/predict", response_class=Response)
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """The body is the image file itself."""
        deadline = time.monotonic() + limits.seconds
        give_back = inspector.take_place()
        counters.uploads.inc()

        def done(_: object = None) -> None:
            counters.uploads.dec()
            give_back()

        try:
            data = await body_of(request, limits)
            future = inspector.submit(data, asked.answer, asked.mm_per_px, deadline)
        except BaseException:
            done()
            raise
        # work that is past its deadline keeps its place until it ends
        future.add_done_callback(done)
        async with asyncio.timeout(max(0, deadline - time.monotonic())):
            body, classes = await asyncio.wrap_future(future)
        for name in classes:
            counters.defects.labels(name).inc()
        return Response(body, media_type=MEDIA_TYPES[asked.answer])

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok", "model": network.identity, "classes": network.names})

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.head("/", include_in_schema=False)
    @app.get("/", response_class=HTMLResponse)
    async def drop() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy_of(page)})

    async def refuse(_: Request, error: Exception) -> PlainTextResponse:
        headers = {"Retry-After": "1"} if isinstance(error, Busy) else getattr(error, "headers", None)
        status = getattr(error, "status_code", None) or STATUSES[type(error)]
        return PlainTextResponse(printable(reason_of(error, limits)) + "\n", status, headers)

    for kind in (HTTPException, *STATUSES):
        app.add_exception_handler(kind, refuse)
    return app


async def body_of(request: Request, limits: Limits) -> bytes:
    """The request's body. Raises HTTPException: 408 for one that is too slow, 413 too large, 415 a form."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(415, "a form; the body has to be the image file itself: curl --data-binary @image.jpg")
    too_large = HTTPException(413, f"upload above {limits.upload_bytes:,} bytes")
    if int(request.headers.get("content-length", "0")) > limits.upload_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.upload_bytes:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"upload not received within {limits.seconds:g} s") from None
    return b"".join(parts)


def reason_of(error: Exception, limits: Limits) -> str:
    """One line about an error that has a status."""
    if isinstance(error, RequestValidationError):
        return "; ".join(
            f"{'.'.join(map(str, one['loc'][1:]))} = {one['input']}: {one['msg']}" for one in error.errors()
        )
    if isinstance(error, HTTPException):
        return str(error.detail)
    told = {
        Busy: f"{limits.waiting} uploads are waiting already; try again",
        TimeoutError: f"not answered within {limits.seconds:g} s",
        MemoryError: "out of memory; try a smaller image",
        ClientDisconnect: "the client has closed the connection",
    }
    return told.get(type(error)) or str(error)


def policy_of(page: str) -> str:
    """The Content-Security-Policy that lets in nothing but the page's own style and script, by their hashes."""
    sources = {}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        sources[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    return (
        f"default-src 'none'; connect-src 'self'; img-src blob: data:; style-src {sources['style']}; "
        f"script-src {sources['script']}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
