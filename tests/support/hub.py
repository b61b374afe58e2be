"""A server with as much of the Hugging Face hub as its client needs to download a repository; it counts downloads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The server's address, and how often each file was downloaded.

    Args:
        folders: The folder of each repository.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.downloads = Counter[str]()
        self.url = ""


@contextmanager
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    """Serve repositories on the loopback interface."""
    state = Hub(folders)

    class Handler(_Handler):
        served = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *args: object) -> None:
        del args

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        for repository, folder in self.served.folders.items():
            if path == f"api/models/{repository}/revision/main":
                return self._json({"id": repository, "sha": COMMIT, "siblings": []})
            if path == f"api/models/{repository}/tree/{COMMIT}":
                return self._json([_entry(file) for file in sorted(folder.iterdir())])
            start = f"{repository}/resolve/{COMMIT}/"
            if path.startswith(start) and (file := folder / path.removeprefix(start)).is_file():
                self.served.downloads[file.name] += body
                return self._send(200, file.read_bytes(), body=body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), body=True)

    def _send(self, status: int, data: bytes, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def _entry(file: Path) -> dict[str, object]:
    data = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
