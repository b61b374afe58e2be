"""The data of an explorer page as bytes: a header of JSON and columns of little-endian numbers, compressed.

gzip of: the length of the header as uint32, 4 zero bytes, the header as UTF-8 JSON, zeros up to a multiple of 8, then
the columns, each at a multiple of 8. The header names each column with its type, its offset behind the header and its
length.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wds_real.labels import classes
from wds_real.scoring.predictions import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from wds_real.explore.page.content import Answers, Content

__all__ = ["NO_CLASS", "encode_content"]

NO_CLASS = 0xFFFF
_FORMAT = {"name": "wds_real.explorer", "version": 1}
_ALIGNMENT = 8
_LEVEL = 6  # 9 takes four times as long for 1 % less
_UNITS = 10_000  # probabilities are shown in hundredths of a percent


def encode_content(content: Content) -> bytes:
    """Return the compressed bytes that the page's ``data/table.js`` reads; equal content gives equal bytes."""
    columns, body, offset = list[dict[str, Any]](), list[bytes](), 0
    for name, values in _columns(content):
        data = values.tobytes()
        columns.append({"name": name, "type": values.dtype.name, "offset": offset, "length": values.size})
        body.append(_padded(data))
        offset += len(body[-1])
    header = json.dumps({**_header(content), "columns": columns}, separators=(",", ":")).encode("ascii")
    start = len(header).to_bytes(4, "little") + bytes(4)
    return gzip.compress(b"".join((start, _padded(header), *body)), _LEVEL, mtime=0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _header(content: Content) -> dict[str, Any]:
    places = content.places
    return {
        "format": _FORMAT,
        "title": content.title,
        "digest": content.digest,
        "num_images": len(content.keys),
        "threshold": content.threshold,
        "given": content.given,
        "keys": content.keys,
        "classes": [[info.wnid, info.lemmas, info.definition] for info in classes()],
        "models": [
            {"name": model.name, "source": model.source, "notes": model.notes, "probabilities": _has_some(model)}
            for model in content.answers
        ],
        "shards": None
        if places is None
        else [{"name": shard.name, "num_bytes": shard.num_bytes} for shard in places.shards],
    }


def _has_some(model: Answers) -> bool:
    return bool(np.isfinite(model.probabilities).any())


def _columns(content: Content) -> Iterator[tuple[str, NDArray[Any]]]:
    evidence, places = content.evidence, content.places
    lengths = np.array([len(labels) for labels in content.real_label], dtype=np.uint16)
    flat = [label for labels in content.real_label for label in labels]
    yield "original", content.original_label.astype("<u2")
    yield "real_count", lengths.astype("<u2")
    yield "real_label", np.array(flat, dtype="<u2")
    yield "by_threshold", evidence.by_threshold.astype(np.uint8)
    yield "rated_count", evidence.num_labels.astype("<u2")
    yield "rated_label", evidence.label.astype("<u2")
    yield "rated_permille", evidence.permille.astype("<i2")
    for number, model in enumerate(content.answers):
        yield f"answered_{number}", model.answered.astype(np.uint8)
        for place in range(TOP):  # the first places of all images together compress best
            column = model.classes[:, place]
            yield f"class_{number}_{place}", np.where(column < 0, NO_CLASS, column).astype("<u2")
        if _has_some(model):
            for place in range(TOP):
                share = model.probabilities[:, place].astype(np.float64)
                known = np.isfinite(share)
                units = np.rint(np.clip(np.where(known, share, 0.0), 0.0, 1.0) * _UNITS)
                yield f"probability_{number}_{place}", np.where(known, units, NO_CLASS).astype("<u2")
    if places is not None:
        yield "shard", places.shard.astype("<u4")
        yield "offset", places.offset.astype("<f8")  # exact below 2**53, and faster in JavaScript than BigInt
        yield "num_bytes", places.num_bytes.astype("<f8")
        yield "width", places.width.astype("<u4")
        yield "height", places.height.astype("<u4")
        yield "checksum", places.checksum.astype("<u8").view("<u4")
