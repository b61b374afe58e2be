"""For webdataset users: the same stores, and each sample exactly once, in the pipelines they have.

    import webdataset as wds
    from wds_real import interop, open_dataset

    interop.register_stores()                                  # WebDataset("s3://...") reads through wds_real's stores
    ds = open_dataset("s3://lab/imagenet-real")
    pipeline = wds.DataPipeline(interop.ExactlyOnce(ds, batch_size=64), wds.decode("pil"), wds.to_tuple("jpg", "cls"))
    pipeline = interop.WebDataset(ds, batch_size=64).decode("pil").to_tuple("jpg", "json")       # the same, as methods

Stock ``WebDataset`` gives whole shards to ranks and workers. `ExactlyOnce` takes the place of its first stages, up to
samples, and shares out single samples by `wds_real.data.plan`.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import webdataset
from torch.utils.data import IterableDataset
from webdataset.compat import FluidInterface

from wds_real.data.loader import Loader
from wds_real.errors import StoreError
from wds_real.format.tar import BLOCK, END, TarError, padding, parse_header, pax_size
from wds_real.packing.writer import encode_label
from wds_real.storage.prefetch import BLOCK_BYTES, ByteRange, Prefetcher
from wds_real.storage.store import open_store
from wds_real.storage.url import split_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wds_real.data.dataset import Dataset

__all__ = ["ExactlyOnce", "StoreStream", "WebDataset", "open_stream", "register_stores"]

_SCHEMES = ("s3", "gs", "az", "http", "https")


class ExactlyOnce(IterableDataset[dict[str, Any]]):
    """A source stage: this rank's and this worker's samples, undecoded, as dictionaries in webdataset's form.

    Each has ``__key__``, ``__url__`` (of its shard), ``jpg``, ``json`` (the label file) and ``cls`` (the original label
    in digits). Over all ranks and workers each sample of the data set comes exactly once. With the `batch_size` of a
    later ``batched`` stage, batches are those of `wds_real.Loader` at any world size and number of workers.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: Neighbouring samples that go to the same rank and worker.
        shuffle: As for `Loader`.
        seed: As for `Loader`.
        rank: As for `Loader`.
        world_size: As for `Loader`.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self._dataset = dataset
        self._loader = Loader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            pad=False,
            decode=False,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the samples.

        Raises:
            ShardError: a sample is damaged.
            UnavailableError: the object store denies access, or gave up.
        """
        dataset = self._dataset
        for batch in self._loader:
            for key, position, jpeg in zip(batch.key, batch.index.tolist(), batch.jpeg, strict=True):
                label = dataset.index.label(position)
                yield {
                    "__key__": key,
                    "__url__": f"{dataset.root}/{dataset.manifest.shards[dataset.index.shard[position]].name}",
                    "jpg": bytes(jpeg),
                    "json": encode_label(label),
                    "cls": str(label.original_label).encode("ascii"),
                }

    def __len__(self) -> int:
        """Return the number of samples this rank yields, over all its workers."""
        return self._loader.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next ``iter()``."""
        self._loader.set_epoch(epoch)


class WebDataset(webdataset.DataPipeline, FluidInterface):  # type: ignore[misc]  # webdataset is untyped
    """``webdataset.WebDataset`` with `ExactlyOnce` as its source, and its methods ``decode``, ``to_tuple``, ``map``.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: As for `ExactlyOnce`.
        shuffle: As for `Loader`, in place of ``shardshuffle`` and ``.shuffle(...)``.
        seed: As for `Loader`.
        rank: As for `Loader`, in place of ``nodesplitter``.
        world_size: As for `Loader`.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int = 256,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.source = ExactlyOnce(
            dataset, batch_size=batch_size, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size
        )
        super().__init__(self.source)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next ``iter()``."""
        self.source.set_epoch(epoch)


def register_stores(storage_options: Mapping[str, str] | None = None, *, schemes: tuple[str, ...] = _SCHEMES) -> None:
    """Let stock webdataset open URLs of these schemes by `open_stream`, in this process and those forked from it.

    Call it in ``worker_init_fn`` too where DataLoader workers are spawned or forked from a server.

    Args:
        storage_options: As `wds_real.open_store` takes them.
        schemes: Without ``://``; ``http`` and ``https`` take the place of webdataset's ``curl``.
    """

    def opener(url: str, mode: str = "rb", bufsize: int = 8192) -> io.BufferedReader:
        del bufsize
        if mode != "rb":
            raise StoreError(f"mode {mode!r}: shards are only read this way. `wds-real pack` writes them.")
        return open_stream(url, storage_options=storage_options)

    from webdataset.gopen import gopen_schemes  # noqa: PLC0415 -- webdataset.gopen is also a function

    gopen_schemes.update(dict.fromkeys(schemes, opener))


def open_stream(url: str, *, storage_options: Mapping[str, str] | None = None) -> io.BufferedReader:
    """Open an object for reading from beginning to end, fetched ahead, of one version, and of its whole length.

    Raises:
        MissingError: there is no such object.
        UnavailableError: the object store denies access, or gave up.
    """
    return io.BufferedReader(StoreStream(url, storage_options=storage_options), buffer_size=1 << 20)


class StoreStream(io.RawIOBase):
    """The bytes of an object, in order. Reaching the end of a tar that has no end marker is an error, not an end."""

    def __init__(self, url: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._ahead: Prefetcher | None = None
        place, self._name = split_url(url)
        self._store = open_store(place, storage_options=storage_options)
        self._num_bytes = self._store.head(self._name)
        starts = range(0, self._num_bytes, BLOCK_BYTES)
        wanted = [ByteRange(self._name, start, min(start + BLOCK_BYTES, self._num_bytes)) for start in starts]
        self._ahead = Prefetcher(self._read, wanted)
        self._blocks = iter(range(len(wanted)))
        self._block = memoryview(b"")
        self._chain = _Chain() if self._name.endswith(".tar") else None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- any writable buffer
        """Fill the start of a buffer and return how many bytes that are; 0 at the end."""
        if not self._block.nbytes:
            number = next(self._blocks, None)
            if number is None or self._ahead is None:
                self._check_end()
                return 0
            self._block = self._ahead.take(number)
            if self._chain is not None:
                self._chain.feed(self._block)
        view = memoryview(buffer).cast("B")
        length = min(view.nbytes, self._block.nbytes)
        view[:length] = self._block[:length]
        self._block = self._block[length:]
        return length

    def close(self) -> None:
        """End reading ahead."""
        if not self.closed and self._ahead is not None:
            self._ahead.close()
        super().close()

    def _read(self, name: str, start: int, stop: int) -> bytes | memoryview:
        return self._store.get_range(name, start, stop, size=self._num_bytes)

    def _check_end(self) -> None:
        if self._chain is not None and not self._chain.ended:
            raise StoreError(
                f"{self._store.url}/{self._name}: its {self._num_bytes:,} bytes have no end-of-archive marker: it is "
                "cut. Copy it again."
            )


class _Chain:
    """Follows the headers of a tar that goes by, to know whether its end marker was among it."""

    def __init__(self) -> None:
        self.ended = False
        self._position = 0  # of the next byte that is fed
        self._gathered = b""  # of a header, or of what extends the next one
        self._start, self._length, self._is_header = 0, BLOCK, True
        self._after = 0  # where the next header is, behind an extension
        self._zero_blocks = 0
        self._size: int | None = None  # that an extension gives for the next member

    def feed(self, block: memoryview) -> None:
        """Look at the headers in the next bytes of the archive."""
        end = self._position + len(block)
        try:
            while not self.ended and self._start + len(self._gathered) < end:
                start = self._start + len(self._gathered) - self._position
                self._gathered += bytes(block[start : start + self._length - len(self._gathered)])
                if len(self._gathered) < self._length:
                    break
                self._take(self._gathered)
                self._gathered = b""
        except TarError:
            self._start = sys.maxsize  # whoever unpacks it says what is wrong
        self._position = end

    def _take(self, data: bytes) -> None:
        """Learn from a whole header or extension where the next one is."""
        if not self._is_header:
            self._size = pax_size(data)
            self._start, self._length, self._is_header = self._after, BLOCK, True
        elif not any(data):
            self._zero_blocks += 1
            self.ended = self._zero_blocks == len(END) // BLOCK
            self._start += BLOCK
        else:
            _, size, flag = parse_header(data)
            self._zero_blocks = 0
            if flag not in b"xgLK":
                size, self._size = (self._size or size) if flag in b"0\0" else 0, None
            self._after = self._start + BLOCK + size + padding(size)
            self._start, self._length, self._is_header = self._after, BLOCK, True
            if flag == b"x" and size:
                self._start, self._length, self._is_header = self._after - size - padding(size), size, False
