"""What a client library of object stores is to us: single requests, and answers that say what they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

__all__ = ["Answer", "Client", "Version"]


@dataclass(frozen=True, slots=True)
class Version:
    """What an answer said of an object: its length in bytes, and its ETag if it has one."""

    num_bytes: int
    etag: str | None

    @property
    def strong_etag(self) -> str | None:
        """The ETag if it may stand in If-Match: a weak one never matches."""
        return None if self.etag is None or self.etag.startswith("W/") else self.etag


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes, the half-open range of the object that they are, and the version they are of."""

    data: memoryview
    start: int
    stop: int
    version: Version


class Client(Protocol):
    """One request each; errors are the client library's own."""

    errors: tuple[type[Exception], ...]

    def list(self) -> list[str]:
        """Return the names directly below the location, sorted."""
        ...

    def head(self, name: str) -> Version:
        """Return what an object is."""
        ...

    def get(self, name: str, start: int, stop: int, if_match: str | None) -> Answer:
        """Return a range, of the version with that ETag if one is given."""
        ...

    def stream(self, name: str) -> tuple[Version, Iterator[memoryview]]:
        """Return what an object is, and its bytes as they come."""
        ...

    def put(self, name: str, data: bytes, *, exclusive: bool) -> None:
        """Write an object in one request."""
        ...

    def upload(self, name: str, file: BinaryIO) -> None:
        """Write an object in parts, from the beginning of the file."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object."""
        ...

    def abort_uploads(self) -> builtins.list[str]:
        """Abort what others began to upload, and return the names."""
        ...

    def sign(self, name: str) -> tuple[str, dict[str, str]] | None:
        """Return a URL, and headers, that read an object for a minute, if there is a way to make them."""
        ...
