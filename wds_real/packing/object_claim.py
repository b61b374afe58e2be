"""Claim an object store for one writer, with plain writes, listings and deletes.

Each writer writes a claim under a name of its own, lists all claims, and goes on only if there is no other. Of two that
start together, the one that writes later sees the claim of the other, so they never both go on. That needs no
conditional writes, which some servers lack. The one that started first waits `_CONTEST_S` for the others to give up.

A claim expires after `_LEASE_S`, unless its writer renews it under a new name. If the writer was a process of this
machine that has ended, the claim is removed at once. If the claim has expired by this machine's clock, it is removed
only after it was not renewed for `_WATCHED_S`, so that clocks need not agree.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from wds_real.errors import MissingError, StoreError, UnavailableError
from wds_real.format.owner import Owner, utc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.storage.base import Store

__all__ = ["Claim", "object_claim", "refuse"]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"wds_real-claim-(\d{1,15})-([0-9a-f]{16})-(\d{1,12})\.json", re.ASCII)
_LEASE_S = 90.0
_RENEWED_S = 20.0
_WATCHED_S = 45.0  # more than two renewals
_CONTEST_S = 5.0  # how long the first of several that start together waits for the others
_POLL_S = 0.25
_RELEASED = b"released\n"  # content of a claim that has ended
_MAX_BYTES = 4096  # of a claim that are read


class Claim:
    """What a writer holds of a root while it writes there."""

    def check(self) -> None:
        """Check that the root is still claimed; the claim of a lock file cannot be lost.

        Raises:
            StoreError: another writer took over, because this process was stopped for too long.
        """


@contextlib.contextmanager
def object_claim(root: Store, owner: Owner, *, advice: str) -> Iterator[Claim]:
    """Hold a claim on a root while the block runs.

    Raises:
        StoreError: another process writes there, or the root cannot be written to.
    """
    if not root.listable:
        raise UnavailableError(f"{root.url}: a web server can only be read. {advice}")
    claim = _ObjectClaim(root, owner, advice)
    try:
        try:
            claim.put()
        except UnavailableError as error:
            raise UnavailableError(f"{error} {advice}") from None
        claim.renew_in_background()
        claim.contest()
        yield claim
    finally:
        claim.release()


def refuse(root: Store, owner: Owner | None, advice: str, *, until_s: float | None = None) -> NoReturn:
    """Raise StoreError: somebody else writes there."""
    if until_s is not None:
        advice += f" If it was killed, its claim ends at {utc(until_s, '%H:%M:%S UTC')}: run this again then."
    raise StoreError(f"{root.url}: is being written by {owner or 'another process'}. Wait until it has ended. {advice}")


@dataclass(frozen=True, slots=True, order=True)
class _Holder:
    """What the name of a claim says: start of its writer (in ms), a random word, and when the claim expires (in s)."""

    started: int
    word: str
    ends: int

    @property
    def name(self) -> str:
        return f"wds_real-claim-{self.started}-{self.word}-{self.ends}.json"  # a renewed one comes later in a listing


class _ObjectClaim(Claim):
    """A claim in a store, renewed until it is released."""

    def __init__(self, root: Store, owner: Owner, advice: str) -> None:
        self._root, self._content, self._advice = root, owner.to_json(), advice
        self._rank = (int(time.time() * 1000), secrets.token_hex(8))
        self._names: list[str] = []  # of the claims in the store, the current one last
        self._renewed_at = _clock()
        self._is_lost = False
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)

    def put(self) -> None:
        """Write the claim, or renew it: under a new name, after which the old one is removed."""
        name = _Holder(*self._rank, ends=int(time.time() + _LEASE_S)).name
        if name in self._names:
            return
        self._root.put(name, self._content)
        self._renewed_at = _clock()
        self._names.append(name)
        for old in self._names[:-1]:
            try:
                self._root.head(old)
            except MissingError:
                self._is_lost = True  # another writer has removed it as expired
            with contextlib.suppress(StoreError):  # where nothing can be deleted, it expires
                self._root.delete(old)
            self._names.remove(old)

    def renew_in_background(self) -> None:
        """Renew the claim every `_RENEWED_S` until it is released."""
        self._thread.start()

    def _renew(self) -> None:
        while not self._released.wait(_RENEWED_S):
            with self._lock, contextlib.suppress(StoreError):  # the next one may succeed; `check` says if none did
                self.put()

    def contest(self) -> None:
        """Wait until there is no other claim.

        Raises:
            StoreError: another process writes there.
        """
        seen_at = dict[_Holder, float]()
        while others := self._others():
            for holder in [holder for holder in others if holder not in seen_at]:
                seen_at[holder] = _clock()
                if holder.ends < time.time():
                    self._say_waiting(holder)
            live = [holder for holder in others if holder.ends >= time.time()]
            for holder in live:
                is_first = (holder.started, holder.word) < self._rank
                if is_first or _clock() > seen_at[holder] + _CONTEST_S:
                    refuse(self._root, self._owner_of(holder), self._advice, until_s=holder.ends)
            for holder in others:
                if holder not in live and _clock() > seen_at[holder] + _WATCHED_S:
                    self._remove(holder.name)
            time.sleep(_POLL_S)

    def _say_waiting(self, holder: _Holder) -> None:
        owner = self._owner_of(holder) or "another process"
        text = "%s: the claim of %s has ended. Waiting %.0f s to see that it is not renewed"
        _LOG.warning(text, self._root.url, owner, _WATCHED_S)

    def _others(self) -> list[_Holder]:
        """Return the newest claim of each other writer; remove claims of processes that have ended."""
        newest = dict[str, _Holder]()
        for name in self._root.list():
            match = _NAME.fullmatch(name)
            if match is None or match[2] == self._rank[1]:
                continue
            holder = _Holder(int(match[1]), match[2], int(match[3]))
            content = self._read(name)
            owner = Owner.from_json(content)
            if content == _RELEASED or (owner is not None and owner.is_gone()):
                self._remove(name)
            else:
                newest[holder.word] = max(holder, newest.get(holder.word, holder))
        return sorted(newest.values())

    def _owner_of(self, holder: _Holder) -> Owner | None:
        return Owner.from_json(self._read(holder.name))

    def _read(self, name: str) -> bytes:
        try:
            return self._root.get(name, fresh=True)[:_MAX_BYTES]
        except MissingError:
            return _RELEASED

    def _remove(self, name: str) -> None:
        with contextlib.suppress(StoreError):  # another writer was faster, or nothing can be deleted
            self._root.delete(name)

    def check(self) -> None:
        """Check that the root is still claimed.

        Raises:
            StoreError: another writer took over.
        """
        with self._lock:
            if _clock() > self._renewed_at + _LEASE_S:  # this process was stopped, or the machine slept
                self.put()
                self._is_lost |= bool(self._others())
            if self._is_lost:
                raise StoreError(
                    f"{self._root.url}: another process took over, because this one was stopped for more than "
                    f"{_LEASE_S:.0f} s. Run this again when that one has ended."
                )

    def release(self) -> None:
        """End the claim, and remove it; where nothing can be deleted, its content says that it has ended."""
        self._released.set()
        if self._thread.ident is not None:
            self._thread.join()
        for name in self._names:
            try:
                self._root.put(name, _RELEASED)
                self._root.delete(name)
            except MissingError:
                continue
            except StoreError as error:
                _LOG.warning("%s stays there, without effect after %.0f s: %s", name, _LEASE_S, error)


def _clock() -> float:
    """Return a monotonic time in seconds, which includes the time that the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
