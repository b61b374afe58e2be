"""Records in an object store: objects that are written once, each with the batches of some seconds.

    URL/records/RRRRR-TTTTTTTT-NNNNNN.bin     rank R, a random word T of its start, its N-th object

A thread writes them, so the evaluation does not wait. A kill loses the batches that were finished in the last seconds,
and these are evaluated again. Runs without torch.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from wds_real.errors import StoreError

if TYPE_CHECKING:
    from wds_real.scoring.run.place import OutputPlace

__all__ = ["RecordObjects"]

_MAX_BYTES = 1 << 20  # of frames that wait for the next object: 30,000 images


class RecordObjects:
    """The record objects of a place, and those of this process, which a thread writes.

    Args:
        place: Of the output, in an object store.
        rank: Of this process.
        save_every_s: Longest time that a finished batch waits for its object to be written.

    Attributes:
        grows: Whether an object that was read may hold more when it is read again.
    """

    grows = False

    def __init__(self, place: OutputPlace, *, rank: int, save_every_s: float) -> None:
        self._store = place.inside("records").store
        self._save_every_s = save_every_s
        self._prefix, self._num_begun = f"{rank:05d}-{secrets.token_hex(4)}", 0
        self._waiting = list[bytes]()
        self._oldest_at = 0.0
        self._error: Exception | None = None
        self._changed = threading.Condition()  # guards the fields above
        self._writing = threading.Lock()  # held while an object is written, so that their numbers are in order
        self._thread: threading.Thread | None = None
        self._closed = False

    def names(self) -> list[str]:
        """Return the names of all record objects, sorted."""
        return [name for name in self._store.list() if name.endswith(".bin")]

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        return self._store.get(name, fresh=True)

    def append(self, frame: bytes) -> None:
        """Let a frame be written with the next object.

        Raises:
            StoreError: an object could not be written; the batches in it are lost.
        """
        with self._changed:
            self._check()
            if not self._waiting:
                self._oldest_at = time.monotonic()
            self._waiting.append(frame)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="records", daemon=True)
                thread.start()
                self._thread = thread  # after a signal in the line above there is none to be joined
            self._changed.notify()

    def flush(self) -> None:
        """Write what waits, and return when it is there.

        Raises:
            StoreError: an object could not be written.
        """
        with self._changed:
            self._check()
        self._write_waiting()
        with self._changed:
            self._check()

    def close(self) -> None:
        """Write what waits, and end the thread.

        Raises:
            StoreError: an object could not be written, and no call raised it before.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        with self._changed:
            error, self._error = self._error, None
        if error is not None:
            raise error
        self._write_waiting()
        with self._changed:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            self._waiting.clear()  # the store failed for minutes: it is not tried again
            raise error

    @staticmethod
    def _told(error: Exception, num_batches: int) -> Exception:
        if not isinstance(error, StoreError):
            return error
        batches, them = (
            ("the last batch is", "it") if num_batches == 1 else (f"the last {num_batches} batches are", "them")
        )
        return type(error)(f"{error} Of this process, {batches} not saved: the same command evaluates {them} again.")

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._error is None and (left := self._left_s()) > 0:
                    self._changed.wait(left)
                if self._closed or self._error is not None:
                    return
            self._write_waiting()

    def _left_s(self) -> float:
        """Return how long the next object may wait."""
        if not self._waiting:
            return threading.TIMEOUT_MAX
        if sum(map(len, self._waiting)) >= _MAX_BYTES:
            return 0.0
        return self._oldest_at + self._save_every_s - time.monotonic()

    def _write_waiting(self) -> None:
        with self._writing:
            with self._changed:
                frames, self._waiting = self._waiting, []
            if not frames:
                return
            name = f"{self._prefix}-{self._num_begun:06d}.bin"
            self._num_begun += 1
            try:
                self._store.put(name, b"".join(frames), exclusive=True)
            except Exception as error:  # noqa: BLE001 -- raised in the thread that evaluates
                with self._changed:
                    self._error = self._told(error, len(frames) + len(self._waiting))
            except BaseException:  # a signal: the object may be there or not, so `close` writes another one
                with self._changed:
                    self._waiting[:0] = frames
                raise
