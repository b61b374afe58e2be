"""open_store: a path is a folder, a URL is an object store or a web server, and anything else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import StoreError, UnavailableError
from wds_real.storage.store import open_store


def test_a_path_opens_a_folder(tmp_path: Path) -> None:
    """Text and path objects name the same store, which remembers the path as given."""
    open_store(tmp_path / "x").put("a", b"1")
    assert open_store(str(tmp_path / "x")).get("a") == b"1"
    assert open_store("shards").url == open_store(Path("shards")).url == "shards"


def test_a_folder_takes_no_storage_options(tmp_path: Path) -> None:
    """An option that would have no effect is an error."""
    with pytest.raises(StoreError, match="a folder takes none"):
        open_store(tmp_path, storage_options={"region": "x"})


@pytest.mark.parametrize("url", ["ftp://key:secret@lab/set?token=secret", "hdfs://host/x?sig=secret", "S4://lab/x"])
def test_a_url_of_an_unknown_kind_is_refused_without_showing_it(url: str) -> None:
    """No URL is mistaken for a folder; the error names the scheme and nothing that may be secret."""
    with pytest.raises(StoreError, match="no such kind of store") as caught:
        open_store(url)
    assert str(caught.value).lower().startswith(url.lower().split("//")[0])
    assert "secret" not in str(caught.value)


# --- Large answers, which are gathered in memory that is used again -----------------------------------------


LARGE = np.random.default_rng(0).integers(256, size=9 << 20, dtype=np.uint8).tobytes()


def address(view: bytes | memoryview) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)


@settings(deadline=None, max_examples=40)
@given(bounds=st.lists(st.tuples(st.integers(0, len(LARGE)), st.integers(0, len(LARGE))), min_size=1, max_size=6))
def test_what_is_held_of_large_answers_is_never_written_over(bounds: list[tuple[int, int]]) -> None:
    """Ranges of all lengths are right, also after all the others were read, and cannot be written to."""
    store = open_store("memory://large")
    store.put("a", LARGE)
    ranges = [(min(pair), max(pair)) for pair in bounds]
    found = [store.get_range("a", *one) for one in ranges]
    for (start, stop), data in zip(ranges, found, strict=True):
        assert memoryview(data).readonly
        assert bytes(data) == LARGE[start:stop]


def test_large_answers_that_are_let_go_make_room_for_the_next() -> None:
    """One after the other lies at the same place; one that is still held has its own."""
    store = open_store("memory://large")
    store.put("a", LARGE)
    places = {address(store.get_range("a", start, start + (8 << 20))) for start in range(5)}
    assert len(places) == 1
    held = store.get_range("a", 0, 8 << 20)
    assert address(held) != address(store.get_range("a", 0, 8 << 20))


@pytest.mark.parametrize("change", ["cut", "lengthened"])
def test_large_answers_of_another_length_are_not_believed(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client library that lets through fewer or more bytes than were asked for: no bytes come, but an error."""

    class Answer:
        """An answer whose bytes are not as long as it says."""

        def __init__(self, answer: obstore.GetResult) -> None:
            self.range, self.meta = answer.range, answer.meta
            self._data = bytes(answer.bytes())

        def stream(self, *, min_chunk_size: int) -> list[bytes]:
            data = self._data[:-1] if change == "cut" else self._data + b"x"
            return [data[start : start + min_chunk_size] for start in range(0, len(data), min_chunk_size)]

    store = open_store("memory://large", storage_options={"give_up_after": "1"})
    store.put("a", LARGE)
    get = obstore.get
    monkeypatch.setattr(obstore, "get", lambda *place, **options: Answer(get(*place, **options)))
    with pytest.raises(UnavailableError, match="other bytes than requested"):
        store.get_range("a", 5, 5 + (2 << 20))
