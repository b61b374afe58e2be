"""Fuzz target of the JPEG probes, which read headers of files that are not trusted, in Python."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import damaged, jpeg, textured

from wds_real.image.bounds import DecodeError, check_jpeg
from wds_real.image.jpeg_header import JpegError, jpeg_frame, jpeg_layout

pytestmark = pytest.mark.slow
FILES = [jpeg(textured(40, 30)), jpeg(textured(66, 40), progressive=True), jpeg(textured(40, 40, "CMYK"))]
SEGMENTS = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 70), st.binary(max_size=60)).map(
        lambda part: b"\xff" + bytes([part[0]]) + part[1].to_bytes(2, "big") + part[2]
    ),
    max_size=20,
).map(lambda parts: b"\xff\xd8" + b"".join(parts))


@given(st.one_of(damaged(FILES), SEGMENTS, st.binary(max_size=400)))
@settings(max_examples=5_000, deadline=None)
def test_the_probes_end_with_a_size_or_their_error(data: bytes) -> None:
    """On any bytes, and on a view of them, the probes agree and raise nothing but their own errors."""
    try:
        frame = jpeg_frame(data)
    except JpegError:
        frame = None
    layout = jpeg_layout(data)
    assert jpeg_layout(memoryview(data)) == layout
    assert layout.num_scans <= layout.num_segments <= max(0, len(data) // 2)
    if frame is not None:
        assert frame == jpeg_frame(memoryview(data))
        assert min(frame[:2]) >= 1
        with contextlib.suppress(DecodeError):
            check_jpeg(data, size=frame[:2])
