"""The errors this package raises on purpose.

    WdsRealError
    ├── SourceError       the validation tar, a folder of images or a label file is not valid
    ├── ShardError        a shard's bytes do not match the index, or are not a sample
    ├── ManifestError     manifest.json or index.json is missing, damaged or from another version
    ├── StoreError        a file or object cannot be read or written, or is not as expected
    │   ├── MissingError      there is no such file or object
    │   └── UnavailableError  access was denied, or all retries failed; the objects may be intact
    ├── PlanError         impossible rank, world_size or batch_size (also a ValueError)
    ├── ModelError        the model cannot be loaded, or does not return class scores
    │   └── ModelRunError     the model raised an error, or memory ran out, during the evaluation
    ├── PredictionsError  a prediction file or a run's records are damaged, or belong to another run
    └── CoverageError     the samples seen are not exactly the samples expected

A message says, in this order: what happened, where, what was expected and found, what to do. The facts are attributes
too. ``exit_code`` is the exit status of the command line: 1 failure, 2 usage, 3 coverage, 4 integrity.

Names in messages come from archives, servers and other untrusted files. `printable` therefore makes each message one
line without control characters; the attributes hold the names as they were found.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = [
    "CoverageError",
    "ManifestError",
    "MissingError",
    "ModelError",
    "ModelRunError",
    "PlanError",
    "PredictionsError",
    "ShardError",
    "SourceError",
    "StoreError",
    "UnavailableError",
    "WdsRealError",
    "first_few",
    "printable",
]

_NAME_SHOWN = 100  # characters of a name in a list


def printable(text: str) -> str:
    r"""Return `text` as one line that is safe to print: other characters than printable ones are escaped as in Python.

    Escaped are control characters (ESC and line ends among them), characters that change the direction of writing or
    have no width, spaces other than the plain one, and the surrogates that stand for bytes that are not UTF-8.

    >>> print(printable("n\x1b[2J.jpg\nerror: all is well \u202e \udcff é 樹"))
    n\x1b[2J.jpg\nerror: all is well \u202e \udcff é 樹
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class WdsRealError(Exception):
    """The base of every error raised on purpose by this package.

    Attributes:
        exit_code: Of the command that raises it.
        reported_elsewhere: Whether another rank meets the cause, and reports it.
    """

    exit_code: ClassVar[int] = 1
    reported_elsewhere: bool = False

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(printable(value) if isinstance(value, str) else value for value in arguments))


class SourceError(WdsRealError):
    """The validation tar, the folder of images or a label file is not valid."""


class ShardError(WdsRealError):
    """A shard's bytes do not match the index, or are not a sample.

    Attributes:
        shard: Name of the shard within its root.
        key: Key of the sample, or None for the shard as a whole.
        byte_range: Half-open ``(start, stop)`` within the shard, or None.
    """

    exit_code: ClassVar[int] = 4

    def __init__(
        self, problem: str, *, shard: str = "", key: str | None = None, byte_range: tuple[int, int] | None = None
    ) -> None:
        where = shard if key is None else f"{shard}: {key}"
        if byte_range is not None:
            where += f" [bytes {byte_range[0]}-{byte_range[1]})"
        super().__init__(f"{where}: {problem}" if where else problem)  # DataLoader passes on only a worker's message
        self.problem = problem
        self.shard = shard
        self.key = key
        self.byte_range = byte_range

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the attributes when a DataLoader worker pickles the exception."""
        return _rebuild_shard_error, (self.problem, self.shard, self.key, self.byte_range)


def _rebuild_shard_error(problem: str, shard: str, key: str | None, byte_range: tuple[int, int] | None) -> ShardError:
    return ShardError(problem, shard=shard, key=key, byte_range=byte_range)


class ManifestError(WdsRealError):
    """manifest.json or index.json is missing, damaged or from another version."""

    exit_code: ClassVar[int] = 4


class StoreError(WdsRealError):
    """A file or object cannot be read or written, or is not as expected."""


class MissingError(StoreError):
    """There is no such file or object."""


class UnavailableError(StoreError):
    """The object store denied access, or all retries failed; the objects may be intact."""


class PlanError(WdsRealError, ValueError):
    """An impossible rank, world_size, batch_size or split."""

    exit_code: ClassVar[int] = 2


class ModelError(WdsRealError):
    """The model cannot be loaded, or does not return class scores."""

    exit_code: ClassVar[int] = 2


class ModelRunError(ModelError):
    """The model raised an error, or memory ran out, during the evaluation; ``__cause__`` is the model's own error."""

    exit_code: ClassVar[int] = 1


class PredictionsError(WdsRealError):
    """A prediction file or the records of a run are damaged, or belong to another run."""


class CoverageError(WdsRealError):
    """The samples seen are not exactly the samples expected, so no accuracy was computed.

    Attributes:
        missing: Keys never seen, in key order.
        doubled: Keys seen more than once, in key order.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, missing: Sequence[str] = (), doubled: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.doubled = tuple(doubled)


def first_few(names: Collection[str], *, count: int = 3) -> str:
    """Return the first names for a message, and how many there are if that is not all; long names are cut.

    >>> first_few(["a", "b"]), first_few(["a", "b", "c", "d"])
    ('a, b', 'a, b, c ... (4)')
    """
    few = ", ".join(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}..." for name in islice(names, count))
    return few + (f" ... ({len(names):,})" if len(names) > count else "")
