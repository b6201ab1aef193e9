"""Middleware for every request: it counts them, and reads the body of a refused one before the answer is sent."""

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED_BYTES, DRAINED_S = 1 << 26, 5.0
"""Most that is read of a refused upload: a client that is cut off while it sends sees a reset and no answer."""


class Counters:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, identity: str) -> None:
        self.registry = CollectorRegistry()
        place = {"namespace": "boxes2pixels", "registry": self.registry}
        self.requests = Counter("requests", "Requests by path and status.", ["path", "status"], **place)
        self.seconds = Histogram("request_seconds", "From the head of a request to its answer.", ["path"], **place)
        self.uploads = Gauge("uploads", "Uploads that are received, waiting or at work.", **place)
        self.defects = Counter("defects", "Defects found, by class.", ["name"], **place)
        Gauge("model", "The identity of the model; always 1.", ["identity"], **place).labels(identity).set(1)


class Exchange:
    """ASGI middleware. `paths`: others are counted as `other`, so that clients cannot add metrics."""

    def __init__(self, app: ASGIApp, counters: Counters, paths: frozenset[str]) -> None:
        self.app, self.counters, self.paths = app, counters, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, unread = time.monotonic(), 500, True

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and status != 408:  # after a timeout the rest may never come
                    await drain()
            await send(message)

        async def drain() -> None:
            seen = 0
            try:
                async with asyncio.timeout(DRAINED_S):
                    while unread and seen < DRAINED_BYTES:
                        seen += len((await watched_receive()).get("body", b""))
            except TimeoutError:
                pass

        path = scope["path"] if scope["path"] in self.paths else "other"
        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            self.counters.requests.labels(path, str(status)).inc()
            self.counters.seconds.labels(path).observe(time.monotonic() - began)
