"""The layout of a shard: the bytes around each sample's JPEG.

    KEY.jpg header    512 bytes
    JPEG              as in the source
    padding           zeros up to a multiple of 512
    KEY.json header   512 bytes
    label             `encode_label`
    padding           zeros up to a multiple of 512

Samples follow each other without a gap, in key order. The end-of-archive marker, two zero blocks, ends the shard. The
writer produces these bytes and verification compares them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wds_real.format.tar import encode_header, padding

if TYPE_CHECKING:
    from wds_real.labels.tables import Label

__all__ = ["SampleFrame", "encode_label", "frame_sample"]


@dataclass(frozen=True, slots=True)
class SampleFrame:
    """The bytes before and after one JPEG, in their order.

    Attributes:
        jpg_header: Tar header of ``KEY.jpg``.
        jpg_padding: Zeros after the JPEG.
        json_header: Tar header of ``KEY.json``.
        label: The label JSON.
        json_padding: Zeros after the label.
    """

    jpg_header: bytes
    jpg_padding: bytes
    json_header: bytes
    label: bytes
    json_padding: bytes

    @property
    def after(self) -> bytes:
        """The bytes after the JPEG."""
        return self.jpg_padding + self.json_header + self.label + self.json_padding

    @property
    def label_start(self) -> int:
        """Where the label starts, in bytes after the end of the JPEG."""
        return len(self.jpg_padding) + len(self.json_header)


def frame_sample(label: Label, num_bytes: int) -> SampleFrame:
    """Return the bytes around a JPEG of `num_bytes` bytes.

    Raises:
        TarError: the key or a size does not fit a tar header.
    """
    encoded = encode_label(label)
    return SampleFrame(
        jpg_header=encode_header(f"{label.key}.jpg", num_bytes),
        jpg_padding=bytes(padding(num_bytes)),
        json_header=encode_header(f"{label.key}.json", len(encoded)),
        label=encoded,
        json_padding=bytes(padding(len(encoded))),
    )


def encode_label(label: Label) -> bytes:
    """Return the bytes of a sample's JSON member.

    >>> from wds_real.labels import Label
    >>> encode_label(Label("a.JPEG", 65, ()))
    b'{"file_name": "a.JPEG", "original_label": 65, "real_label": []}'
    """
    fields = {"file_name": label.file_name, "original_label": label.original_label, "real_label": label.real_label}
    return json.dumps(fields).encode("ascii")
