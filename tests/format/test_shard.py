"""The layout of a shard: what surrounds a JPEG is what tarfile reads back."""

from __future__ import annotations

import io
import json
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from wds_real.format.shard import encode_label, frame_sample
from wds_real.format.tar import BLOCK, END
from wds_real.labels import Label

labels = st.builds(
    Label,
    file_name=st.from_regex(r"[a-z0-9_]{1,40}\.JPEG", fullmatch=True),
    original_label=st.integers(0, 999),
    real_label=st.lists(st.integers(0, 999), unique=True, max_size=9).map(tuple),
)


@given(labels, st.binary(max_size=1500))
def test_a_framed_sample_is_two_members_of_a_tar(label: Label, jpeg: bytes) -> None:
    """KEY.jpg then KEY.json, padded to blocks; the label starts where the frame says."""
    frame = frame_sample(label, len(jpeg))
    data = frame.jpg_header + jpeg + frame.after
    assert len(data) % BLOCK == 0
    start = len(frame.jpg_header) + len(jpeg) + frame.label_start
    assert data[start : start + len(frame.label)] == encode_label(label)
    with tarfile.open(fileobj=io.BytesIO(data + END)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"{label.key}.jpg", f"{label.key}.json"]
        image, text = (tar.extractfile(member) for member in members)
        assert image is not None
        assert text is not None
        assert image.read() == jpeg
        assert json.loads(text.read()) == {
            "file_name": label.file_name,
            "original_label": label.original_label,
            "real_label": list(label.real_label),
        }
