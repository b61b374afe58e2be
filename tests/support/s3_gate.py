"""A proxy before an S3 server that counts requests and bytes, refuses some, and may hide headers from the server."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.fault_proxy import Response, Upstream
from support.wire import LOOPBACK, Request, Wire, Wires, edit_head, listening, response_head

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from support.s3 import S3Server

__all__ = ["Counted", "Gate", "s3_gate"]

Refusal = tuple[int, str]  # a status, and S3's word for it


@dataclass(frozen=True, slots=True)
class Counted:
    """A request that came through, or was refused.

    Attributes:
        method: Of HTTP.
        path: Bucket and key, decoded.
        sent: Bytes of the request's body.
        received: Bytes of the response's body.
        status: Of the response.
    """

    method: str
    path: str
    sent: int
    received: int
    status: int


@dataclass(slots=True)
class Gate:
    """A running gate; `counted` holds every request so far, in the order of their responses."""

    port: int
    counted: list[Counted] = field(default_factory=list)  # append is atomic, so threads need no lock

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@contextlib.contextmanager
def s3_gate(
    server: S3Server,
    *,
    refuse: Callable[[Request], Refusal | None] = lambda _: None,
    hide: Collection[str] = (),
) -> Iterator[Gate]:
    """Pass requests on to a server, but for those that `refuse` answers.

    Args:
        server: Where the requests go.
        refuse: Called with each request, by one thread at a time; returns status and code of an error response, or None
            to let it through. It may do something to the server first.
        hide: Headers (lower case) that the server is not to see; the request is signed anew without them.
    """
    gate, asking = Gate(port=0), threading.Lock()

    def converse(client: Wire, wires: Wires) -> None:
        with Upstream(LOOPBACK, server.port, wires) as upstream:
            while (request := client.request()) is not None:
                body = b"".join(client.body(request.headers))
                with asking:
                    refusal = refuse(request)
                if refusal is None:
                    response = upstream.send(request, _head(request, server, hide, len(body)), [body])
                else:
                    response = _refused(request, *refusal)
                answer = b"".join(response.body)
                gate.counted.append(Counted(request.method, request.path, len(body), len(answer), response.status))
                client.socket.sendall(response.head + answer)
                if not request.keeps_alive:
                    return

    with listening(converse) as port:
        gate.port = port
        yield gate


def _head(request: Request, server: S3Server, hide: Collection[str], num_bytes: int) -> bytes:
    changes: dict[str, str | None] = {"transfer-encoding": None, "content-length": str(num_bytes)}
    if any(name in request.headers for name in hide):
        changes |= dict.fromkeys(hide)
        changes |= {name: None for name in request.headers if name.startswith("x-amz-") or name == "authorization"}
        changes |= server.sign(request.method, request.target)
    return edit_head(request.head, changes)


def _refused(request: Request, status: int, code: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    return Response(status, response_head(status, headers), headers, iter(() if request.method == "HEAD" else (body,)))
