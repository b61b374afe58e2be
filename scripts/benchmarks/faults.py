"""An HTTP proxy that makes a share of GET requests fail, so that a benchmark can measure retries."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator

__all__ = ["FAULTS", "fault_proxy"]

FAULTS = ("503", "reset", "cut", "stall", "short", "flipped")
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def fault_proxy(host: str, port: int, *, rate: float, seed: int) -> Iterator[int]:
    """Forward requests without bodies to an HTTP server; yield the proxy's port on the same host.

    Args:
        host: Of the server.
        port: Of the server.
        rate: Share of requests that fail, 0..1: with a 503, a reset, a body that is cut, that stalls, that is shorter
            than requested, or has a flipped bit.
        seed: Of the choice.
    """
    draws = random.Random(seed)  # noqa: S311 -- which requests fail
    started = Future[tuple[asyncio.AbstractEventLoop, int]]()
    ended = asyncio.Event()

    async def serve(client: StreamReader, out: StreamWriter) -> None:
        # Cancelled at the end of the block: asyncio logs a task that does not end normally.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            server, to_server = await asyncio.open_connection(host, port, limit=1 << 20)
            with contextlib.closing(to_server), contextlib.closing(out):
                while True:
                    request = await client.readuntil(b"\r\n\r\n")
                    fault = draws.choice(FAULTS) if draws.random() < rate else None
                    if not await _respond(request, fault, server, to_server, out):
                        return

    async def run() -> None:
        async with await asyncio.start_server(serve, host, 0, limit=1 << 20) as listener:
            started.set_result((asyncio.get_running_loop(), listener.sockets[0].getsockname()[1]))
            await ended.wait()

    with ThreadPoolExecutor(1) as pool:
        proxy = pool.submit(asyncio.run, run())
        loop, own_port = started.result()
        try:
            yield own_port
        finally:
            loop.call_soon_threadsafe(ended.set)
            proxy.result()


async def _respond(
    request: bytes, fault: str | None, server: StreamReader, to_server: StreamWriter, out: StreamWriter
) -> bool:
    """Forward a request and its response, with a fault unless that is None; return whether the connection is kept."""
    if fault == "503":
        out.write(_UNAVAILABLE)
        return True
    if fault == "reset":
        out.transport.abort()
        return False
    to_server.write(request)
    head = await server.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await server.readexactly(int(length[1]) if length else 0)
    half = len(body) // 2
    if fault == "short":
        head, body = _LENGTH.sub(b"Content-Length: %d" % half, head), body[:half]
    elif fault == "flipped" and body:
        body = bytes([body[0] ^ 1]) + body[1:]
    out.write(head + (body[:half] if fault in ("cut", "stall") else body))
    await out.drain()
    if fault == "stall":
        await asyncio.sleep(5)
    return fault not in ("cut", "stall")
