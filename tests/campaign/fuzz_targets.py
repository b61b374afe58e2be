"""Fuzz targets: each takes any bytes, and raises nothing unless the package has a fault.

`scripts/fuzz TARGET` runs one under atheris; `test_fuzz.py` runs all under hypothesis. `corpus/TARGET/` holds examples.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from wds_real.data.splits import split_positions
from wds_real.errors import WdsRealError
from wds_real.format.manifest import Manifest, ShardInfo
from wds_real.format.sample_index import SampleIndex
from wds_real.format.tar import TarError, iter_members
from wds_real.image.jpeg_header import JpegError, jpeg_frame
from wds_real.packing.indexer import index_shards
from wds_real.packing.source import open_source
from wds_real.scoring.prediction_reader import read_predictions
from wds_real.scoring.run.description import RunKey, read_run
from wds_real.scoring.run.records import RunRecords
from wds_real.storage.url import Location, is_url, join_url, redact_url, split_url
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CORPUS", "TARGETS"]

CORPUS = Path(__file__).with_name("corpus")

_KINDS = ("csv", "tsv", "txt", "json", "jsonl", "npy", "npz", "parquet")
_KEY = RunKey({"dataset": "0" * 64, "split": "validation", "model": {"name": "x"}, "dtype": "float32", "batch_size": 8})
_IMAGE = encode_image(5, side=16)


def tar(data: bytes) -> None:
    """Walk the members of an archive; the members stay inside it."""
    with contextlib.suppress(TarError):
        for member in iter_members(lambda start, stop: data[start:stop], len(data)):
            assert 0 <= member.offset <= member.offset + member.size <= len(data)


def source(data: bytes) -> None:
    """Open a file as the validation tar, and read its images."""
    with _folder() as folder, contextlib.suppress(WdsRealError):
        (folder / "val.tar").write_bytes(data)
        with open_source(folder / "val.tar", allow_partial=True) as images:
            for image in images.images:
                assert len(images.read(image)) == image.num_bytes


def shard(data: bytes) -> None:
    """Index a file as an external shard."""
    with _folder() as folder, contextlib.suppress(WdsRealError):
        (folder / "a.tar").write_bytes(data)
        index_shards(str(folder / "a.tar"), checksums=True)


def label(data: bytes) -> None:
    """Index a shard whose only sample has these bytes as its label."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("a.jpg", _IMAGE), ("a.json", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    shard(file.getvalue())


def manifest(data: bytes) -> None:
    """Parse a manifest; one that is accepted reads back as itself."""
    with contextlib.suppress(WdsRealError):
        found = Manifest.from_json(data, where="manifest.json")
        assert Manifest.from_json(found.to_json(), where="manifest.json") == found


def index(data: bytes) -> None:
    """Parse an index that its manifest vouches for."""
    vouching = Manifest(
        dataset="imagenet2012_real", version="1.0.0", split="validation", num_samples=2, partial=True,
        source_num_bytes=10, source_digest="", labels_digest="", index_num_bytes=len(data),
        index_sha256=hashlib.sha256(data).hexdigest(), shards=(ShardInfo("a.tar", 2, 1 << 20, ""),), external=True,
    )  # fmt: skip
    with contextlib.suppress(WdsRealError):
        SampleIndex.from_json(data, manifest=vouching, where="index.json")


def predictions(data: bytes) -> None:
    """Read a prediction file; the first byte chooses its kind."""
    with _folder() as folder, contextlib.suppress(WdsRealError):
        path = folder / f"predictions.{_KINDS[data[0] % len(_KINDS)] if data else 'csv'}"
        path.write_bytes(data[1:])
        read_predictions(path)


def jpeg(data: bytes) -> None:
    """Read the frame header of a JPEG."""
    with contextlib.suppress(JpegError):
        frame = jpeg_frame(data)
        assert frame.width > 0 < frame.height


def url(data: bytes) -> None:
    """Parse a URL with an option in its last line; nothing that is shown holds its password."""
    text, _, option = data.decode("utf-8", "surrogateescape").partition("\n")
    name, _, value = option.partition("=")
    with contextlib.suppress(WdsRealError):
        Location.parse(text, {name: value} if name else {}).without_user()
        if is_url(text):
            redact_url(text)
            split_url(join_url(text, "a b.tar"))


def split(data: bytes) -> None:
    """Parse a split; the positions are those of samples."""
    with contextlib.suppress(WdsRealError):
        positions = split_positions(data.decode("utf-8", "surrogateescape"), "validation", 50)
        assert all(0 <= position < 50 for position in positions.tolist())


def records(data: bytes) -> None:
    """Read a file as a record of a run, and as ``run.json``."""
    with _folder() as folder:
        with contextlib.suppress(WdsRealError), RunRecords(folder, _KEY) as run:
            (folder / "records").mkdir()
            (folder / "records" / "00000-000.bin").write_bytes(data)
            for record in run.read().by_batch.values():
                assert len(record.index) == len(record.classes) == len(record.probabilities)
        (folder / "run.json").write_bytes(data)
        with contextlib.suppress(WdsRealError):
            read_run(folder)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (tar, source, shard, label, manifest, index, predictions, jpeg, url, split, records)
}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wds-real-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: scripts/fuzz TARGET [OPTION OF ATHERIS ...]; TARGET is one of {', '.join(TARGETS)}")
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: .venv/bin/python -m pip install atheris; without it run test_fuzz.py")
    name = sys.argv.pop(1)
    for one in gc.get_objects():  # atheris.instrument_all() takes minutes for what torch and others bring
        if isinstance(one, FunctionType) and str(one.__module__).startswith("wds_real."):
            atheris.instrument_func(one)
    atheris.Setup([*sys.argv, str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
