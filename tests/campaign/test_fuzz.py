"""The fuzz targets under hypothesis: examples of the corpus, damaged, and any bytes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign.fuzz_targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_EXAMPLES = 1500
MOST_BYTES = 50 << 10  # of the corpus


def examples(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """Return a file with some pieces replaced, removed, doubled or inserted."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 1, 2, 8, 100])))
        piece = draw(
            st.one_of(st.just(b""), st.just(2 * data[start:stop]), st.binary(max_size=8), st.sampled_from(WORDS))
        )
        data = data[:start] + piece + data[stop:]
    return data


WORDS = [
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b'"\\ud800"',
    b"\0",
    b"\xff",
    b"NaN",
    b"[" * 50,
    b"\n",
    b",",
    b"%",
]


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str, record_property: Callable[[str, object], None]) -> None:
    """No bytes make a target fail: what is read is right, or refused by an error of this package."""
    files, target, runs = examples(name), TARGETS[name], 0
    for data in files:
        target(data)

    @settings(max_examples=NUM_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.one_of(damaged(files), damaged(files), damaged(files), st.binary(max_size=2000)))
    def run(data: bytes) -> None:
        nonlocal runs
        runs += 1
        target(data)

    logging.disable(logging.CRITICAL)
    run()
    record_property("counts", f"fuzz {name}: {len(files)} examples, {runs:,} mutations, 0 faults")


def test_the_corpus_is_small() -> None:
    """Each target has examples, and together they are small."""
    sizes = {name: [len(data) for data in examples(name)] for name in TARGETS}
    assert all(sizes.values())
    assert sum(map(sum, sizes.values())) <= MOST_BYTES
