"""For webdataset users: pipelines that read through this package's stores, and give each sample exactly once.

    import webdataset as wds
    from wds_real import interop, open_dataset

    interop.register_stores()                                  # WebDataset("s3://...") reads through wds_real's stores
    ds = open_dataset("s3://lab/imagenet-real")
    pipeline = wds.DataPipeline(interop.ExactlyOnce(ds, batch_size=64), wds.decode("pil"), wds.to_tuple("jpg", "cls"))
    pipeline = interop.WebDataset(ds, batch_size=64).decode("pil").to_tuple("jpg", "json")       # the same, as methods

Stock ``WebDataset`` gives whole shards to ranks and workers. `ExactlyOnce` replaces its first stages, from shards to
samples, and divides single samples by `wds_real.data.plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import webdataset
from torch.utils.data import IterableDataset
from webdataset.compat import FluidInterface

from wds_real.data.undecoded import UndecodedLoader
from wds_real.errors import StoreError
from wds_real.format.shard import encode_label
from wds_real.interop.stream import open_stream

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping

    from wds_real.data.dataset import Dataset

__all__ = ["ExactlyOnce", "WebDataset", "register_stores"]

_SCHEMES = ("s3", "gs", "az", "http", "https")


class ExactlyOnce(IterableDataset[dict[str, Any]]):
    """A source stage: this rank's and this worker's samples, undecoded, as dictionaries in webdataset's form.

    Each has ``__key__``, ``__url__`` (of its shard), ``jpg``, ``json`` (the label file) and ``cls`` (the original label
    in digits). Over all ranks and workers each sample of the data set comes exactly once. With the `batch_size` of a
    later ``batched`` stage, batches are those of `wds_real.Loader` at any world size and number of workers.

    Args:
        dataset: From `wds_real.open_dataset`.
        batch_size: Number of consecutive samples that go to the same rank and worker.
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
        self._loader = UndecodedLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            pad=False,
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
