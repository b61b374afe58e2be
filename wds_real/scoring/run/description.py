"""``run.json``: what identifies a run, and how its model was run. Runs without torch.

    run.json                the run's identity, whose digest is the run key, and where its data set is
    execution-DIGEST.json   one way in which the model was run, of a run whose output has no single writer

A run that owns its folder lists the ways in which the model was run in ``run.json`` itself. In an object store, or with
independent ranks, ``run.json`` is written once, by the first process, and never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wds_real.errors import MissingError, PredictionsError, StoreError, UnavailableError
from wds_real.format.json_fields import parse_json
from wds_real.scoring.run.place import OutputPlace
from wds_real.storage.files import os_errors_as, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

__all__ = [
    "RUN_NAME",
    "RunDescription",
    "RunKey",
    "encode_json",
    "read_run",
    "world_size_of",
]

RUN_NAME = "run.json"

_LOG = logging.getLogger(__name__)
_FORMAT = {"name": "wds_real.run", "version": 1}
_EXECUTION_FORMAT = {"name": "wds_real.execution", "version": 1}
_EXECUTION_NAME = re.compile(r"execution-([0-9a-f]{16})\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class RunKey:
    """The identity of a run: data, model, preprocessing, precision and batch size.

    Attributes:
        identity: JSON-ready: digest and split of the data set, name and digest of the model, preprocessing, ``dtype``
            and ``batch_size``.
    """

    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of `identity`."""
        return _digest(self.identity)


class RunDescription:
    """``run.json`` of one run, created unless it exists.

    Args:
        place: Of the output.
        key: The identity of the run.
        about: More fields, such as the root of the data set; a writer that owns the place keeps those of its latest
            start.
        writes: Whether this process may write it.
        shared: Whether others may write there meanwhile: then it is created exclusively, and never changed.

    Raises:
        PredictionsError: the place holds another run.
    """

    def __init__(
        self, place: OutputPlace, key: RunKey, about: dict[str, Any] | None, *, writes: bool, shared: bool
    ) -> None:
        self._place, self._writes, self._shared = place, writes, shared
        self._run: dict[str, Any] | None = None  # as read, once nobody changes it
        run = {"format": _FORMAT, "identity": key.identity, "digest": key.digest, **(about or {})}
        if place.folder is not None and place.folder.is_file():
            raise PredictionsError(f"{place}: is a file. Give a folder for --output, which is made if missing.")
        found = _find_run(place)
        if found is None:
            if not writes or not self._create(run):
                return
            found = read_run(place)
        _refuse_other_run(place, found, key)
        if shared:
            self._run = found
        if writes and not shared and about is not None and not about.items() <= found.items():
            self._write({**found, **about})

    def read(self) -> dict[str, Any] | None:
        """Return the content of ``run.json``; ranks on other nodes may have none in their folder."""
        return self._run or _find_run(self._place)

    def executions(self) -> list[dict[str, Any]]:
        """Return how the model was run at each distinct start; empty if there is no ``run.json``."""
        run = self.read()
        return [] if run is None else _executions(self._place, run)

    def add_execution(self, execution: dict[str, Any], *, has_records: Callable[[], bool]) -> None:
        """Add how the model is run from now on, unless it is known.

        Records of earlier versions get an empty entry, because it is unknown how the model was run for them.
        `has_records` is called only if ``run.json`` itself lists the executions.
        """
        if not self._writes:
            return
        run = self._run or read_run(self._place)
        known = _executions(self._place, run)
        if execution in known:
            return
        if self._shared:
            content = {"format": _EXECUTION_FORMAT, "execution": execution}
            with contextlib.suppress(_ThereError):
                self._put(f"execution-{_digest(execution)[:16]}.json", content)
            return
        executions = [*(known or [{}] * has_records()), execution]
        self._write({**run, "executions": executions, "executions_digest": _digest(executions)})

    def _create(self, run: dict[str, Any]) -> bool:
        """Write ``run.json``; return whether another process may have written it meanwhile."""
        if not self._shared:
            self._write(run)
            return False
        try:
            self._put(RUN_NAME, run)
            self._put(RUN_NAME, run)  # fails if the store has conditional writes
        except _ThereError:
            if not self._place.store.emulates_exclusive:
                return True
        _LOG.warning(
            "%s: this store cannot refuse to write what is there already (no conditional writes). Two different runs "
            "that start here at the same time are told apart only by their records: give each its own --output.",
            self._place,
        )
        return True

    def _write(self, run: dict[str, Any]) -> None:
        self._make_place()
        self._place.store.put(RUN_NAME, encode_json(run))

    def _put(self, name: str, content: dict[str, Any]) -> None:
        """Write a file exclusively.

        Raises:
            _ThereError: it exists.
        """
        self._make_place()
        try:
            self._place.store.put(name, encode_json(content), exclusive=True)
        except UnavailableError:
            raise
        except StoreError:
            if name not in self._place.store.list():
                raise
            raise _ThereError from None

    def _make_place(self) -> None:
        with os_errors_as(
            lambda error: PredictionsError(f"{self._place}: records cannot be written: {reason_of(error)}")
        ):
            self._place.make()


class _ThereError(Exception):
    """A file that was to be created exists."""


def read_run(place: str | Path | OutputPlace) -> dict[str, Any]:
    """Return the content of ``run.json``.

    Raises:
        PredictionsError: there is no such file, or it is damaged.
        UnavailableError: the object store denies access, or gave up.
    """
    place = OutputPlace.of(place)
    run = _find_run(place)
    if run is None:
        raise PredictionsError(f"{place}/{RUN_NAME}: no such file: {place} is not the --output of `wds-real eval`.")
    return run


def _find_run(place: OutputPlace) -> dict[str, Any] | None:
    """Return the content of ``run.json``, or None if there is none; as `read_run`."""
    where = f"{place}/{RUN_NAME}"
    try:
        run = parse_json(_read(place, RUN_NAME))
    except MissingError:
        return None
    except ValueError as error:
        raise PredictionsError(f"{where}: cannot be read: {error}. Choose another --output.") from error
    if not isinstance(run, dict) or run.get("format") != _FORMAT or not isinstance(run.get("identity"), dict):
        raise PredictionsError(f"{where}: not written by this version of wds_real. Choose another --output.")
    if {"executions", "executions_digest"} & run.keys() and run.get("executions_digest") != _digest(
        run.get("executions")
    ):
        raise PredictionsError(f"{where}: was edited or damaged: its executions do not match their digest.")
    return run


def _executions(place: OutputPlace, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how the model was run: what ``run.json`` lists, then the ``execution-*.json`` files in name order.

    An entry is {} where records of an earlier version do not tell.

    Raises:
        PredictionsError: an execution file is damaged.
        UnavailableError: as `read_run`.
    """
    executions: list[dict[str, Any]] = list(run.get("executions", []))
    for name in place.store.list():
        match = _EXECUTION_NAME.fullmatch(name)
        if match is None:
            continue
        try:
            content = parse_json(_read(place, name))
            execution = content["execution"]
            if content["format"] != _EXECUTION_FORMAT or _digest(execution)[:16] != match[1]:
                raise ValueError("it was edited or damaged")  # noqa: TRY301 -- one message for all
        except (ValueError, KeyError, TypeError) as error:
            raise PredictionsError(f"{place}/{name}: cannot be read: {error}. Choose another --output.") from error
        executions += [execution] * (execution not in executions)
    return executions


def world_size_of(run: dict[str, Any], ranks: Collection[int]) -> int:
    """Return the number of processes of the latest start; where ``run.json`` does not say it, of those with records."""
    found = run.get("world_size")
    return found if isinstance(found, int) and found > 0 else len(ranks)


def _read(place: OutputPlace, name: str) -> bytes:
    try:
        return place.store.get(name, fresh=True)
    except (MissingError, UnavailableError):
        raise
    except StoreError as error:
        raise PredictionsError(f"{error} Choose another --output.") from error


def encode_json(content: dict[str, Any]) -> bytes:
    """Return the bytes of a JSON file of the output."""
    return (json.dumps(content, indent=1) + "\n").encode("ascii")


def _digest(content: object) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _refuse_other_run(place: OutputPlace, run: dict[str, Any], key: RunKey) -> None:
    found: dict[str, Any] = run["identity"]
    if RunKey(found).digest == key.digest:
        return
    changes = "; ".join(
        f"{name} was {json.dumps(was)}, is {json.dumps(now)}" for name, was, now in _differences(found, key.identity)
    )
    raise PredictionsError(
        f"{place}: holds the records of another run: {changes}. Choose another --output, or remove the folder."
    )


def _differences(was: object, now: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the fields that differ, by their path."""
    if isinstance(was, dict) and isinstance(now, dict):
        for field in sorted({*was, *now}):
            yield from _differences(was.get(field), now.get(field), f"{name}.{field}" if name else field)
    elif was != now:
        yield name, was, now
