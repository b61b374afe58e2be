"""Undecoded batches and the pixel cache in the loader: the same samples, without decoding or without decoding again."""

from __future__ import annotations

import gc
import io
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from wds_real import Batch, Dataset, EvalOptions, EvalTransform, Loader, ShardError, evaluate, open_dataset
from wds_real.data.undecoded import UndecodedLoader
from wds_real.storage.local import LocalStore
from wds_real.storage.store import open_store
from wds_real.synthetic import known_answer_model

SMALL = EvalTransform(16)


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """120 samples in three shards."""
    return open_dataset(packed)


@pytest.fixture
def damaged(packed: Path, tmp_path: Path) -> Dataset:
    """The same set, a byte changed in the pictures at positions 7 and 60."""
    shutil.copytree(packed, tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    for row in (7, 60):
        shard = tmp_path / "set" / dataset.manifest.shards[dataset.index.shard[row]].name
        data = bytearray(shard.read_bytes())
        data[dataset.index.offset[row] + 300] ^= 1
        shard.write_bytes(data)
    return dataset


def undecoded(dataset: Dataset, **settings: Any) -> UndecodedLoader:
    return UndecodedLoader(dataset, **{"batch_size": 25, "threads": 2, **settings})


def cached(dataset: Dataset, folder: Path, **settings: Any) -> Loader:
    return Loader(dataset, **{"batch_size": 25, "threads": 2, "transform": SMALL, "pixel_cache": folder, **settings})


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.key == other.key
        for name in ("image", "original_label", "real_label", "index", "valid"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mmap", [False, True])
def test_undecoded_batches_hold_the_jpeg_files(ds: Dataset, threads: int, *, mmap: bool, shuffle: bool) -> None:
    """The same rows and labels as decoded ones; instead of pixels the very bytes of each file, read-only."""
    batches = list(undecoded(ds, threads=threads, shuffle=shuffle, mmap=mmap))
    decoded = list(Loader(ds, batch_size=25, transform=SMALL, shuffle=shuffle))
    for batch, other in zip(batches, decoded, strict=True):
        assert batch.key == other.key
        assert torch.equal(batch.real_label, other.real_label)
        for position, jpeg in zip(batch.index.tolist(), batch.jpeg, strict=True):
            assert jpeg == (ds.reader.read(position) if position >= 0 else b"")
            assert memoryview(jpeg).readonly
    assert repr(batches[0]) == "UndecodedBatch(number=0, 25 of 25 rows valid)"


@pytest.mark.parametrize("mmap", [False, True])
def test_undecoded_files_stay_as_they_are_while_they_are_held(ds: Dataset, *, mmap: bool) -> None:
    """Memory is used again, but never that of a file somebody still has."""
    loader = undecoded(ds, batch_size=7, mmap=mmap)
    kept = [view for _ in range(3) for batch in loader for view in batch.jpeg]
    expected = [ds.reader.read(position) for position in range(len(ds))] + [b""] * (-len(ds) % 7)
    assert [bytes(view) for view in kept] == expected * 3


def test_undecoded_files_can_be_decoded_by_others(ds: Dataset) -> None:
    """Pillow takes them as they come."""
    (batch, *_) = undecoded(ds)
    images = [Image.open(io.BytesIO(jpeg)).size for jpeg in batch.jpeg]
    assert images == list(zip(ds.index.width[:25].tolist(), ds.index.height[:25].tolist(), strict=True))


def test_undecoded_batches_cross_from_worker_processes(ds: Dataset) -> None:
    """A worker's batch arrives whole, in the plan's order."""
    here = [batch.key for batch in undecoded(ds)]
    with_workers = DataLoader(undecoded(ds, threads=1), batch_size=None, num_workers=2)
    arrived = list(with_workers)
    assert [batch.key for batch in arrived] == here
    assert bytes(arrived[1].jpeg[3]) == ds.reader.read(28)


@pytest.mark.parametrize("mmap", [False, True])
def test_damage_in_undecoded_files_is_found(damaged: Dataset, *, mmap: bool) -> None:
    """A wrong checksum is raised with its sample, or recorded: b"" in a row that is not valid."""
    with pytest.raises(ShardError, match=f"{damaged.index.keys[7]}.*checksum"):
        list(undecoded(damaged, mmap=mmap))
    batches = list(undecoded(damaged, on_error="record", mmap=mmap))
    wrong = [key for batch in batches for key, valid in zip(batch.key, batch.valid, strict=True) if key and not valid]
    assert wrong == [damaged.index.keys[7], damaged.index.keys[60]]
    assert batches[0].jpeg[7] == b""
    assert all(len(jpeg) > 0 for row, jpeg in enumerate(batches[0].jpeg) if row != 7)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_cut_shard_gives_the_files_before_the_cut(ds: Dataset, packed: Path, tmp_path: Path, *, mmap: bool) -> None:
    """Neighbours that are read at once do not share their fate."""
    shutil.copytree(packed, tmp_path / "set")
    cut = open_dataset(tmp_path / "set")
    last = int(ds.index.offset[49])
    os.truncate(tmp_path / "set" / ds.manifest.shards[0].name, last + 10)
    batches = list(undecoded(cut, batch_size=50, on_error="record", mmap=mmap))
    assert batches[0].valid.tolist() == [True] * 49 + [False]
    assert batches[1].valid.all()


@pytest.mark.parametrize("mmap", [False, True])
def test_a_shard_that_is_cut_between_two_passes(packed: Path, tmp_path: Path, *, mmap: bool) -> None:
    """The second pass finds it, and the process lives, though all of the shard was mapped."""
    shutil.copytree(packed, tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    loader = undecoded(dataset, batch_size=50, on_error="record", mmap=mmap)
    assert all(batch.valid[:20].all() for batch in loader)
    os.truncate(tmp_path / "set" / dataset.manifest.shards[0].name, int(dataset.index.offset[20]) + 1)
    assert next(iter(loader)).valid.tolist() == [True] * 20 + [False] * 30


def test_mapped_files_are_parts_of_the_shard(packed: Path, tmp_path: Path) -> None:
    """No copies: all of a shard's share its mapping, which outlives the name of the file and the loader."""
    shutil.copytree(packed, tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    kept = [view for batch in undecoded(dataset, mmap=True, pad=False) for view in batch.jpeg]
    shards = dataset.index.shard.tolist()
    expected = [dataset.reader.read(position) for position in range(len(dataset))]
    mappings = {(shard, id(view.obj)) for shard, view in zip(shards, kept, strict=True) if isinstance(view, memoryview)}
    assert len(mappings) == len(dataset.manifest.shards)
    del dataset
    shutil.rmtree(tmp_path / "set")
    assert [bytes(view) for view in kept] == expected


def test_mmap_is_for_shards_in_a_folder(ds: Dataset) -> None:
    """Objects cannot be mapped: the loader says so when it is made."""
    with pytest.raises(ValueError, match="mmap is for shards in a folder"):
        UndecodedLoader(open_dataset(_in_memory(ds)), mmap=True)


def _in_memory(dataset: Dataset) -> str:
    """Copy a set to a store that is not a folder, and return its URL."""
    store, copy = LocalStore(Path(dataset.reader.url)), open_store("memory://undecoded")
    for name in store.list():
        copy.put(name, store.get(name))
    return copy.url


@pytest.mark.parametrize("shuffle", [False, True])
def test_later_passes_read_pixels_instead_of_decoding(
    packed: Path, ds: Dataset, tmp_path: Path, *, shuffle: bool
) -> None:
    """The second pass gives the batches of the first, also when the pictures are gone."""
    shutil.copytree(packed, tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    first = list(cached(dataset, tmp_path / "cache", shuffle=shuffle))
    assert_equal(first, list(Loader(ds, batch_size=25, transform=SMALL, shuffle=shuffle)))
    for shard in dataset.manifest.shards:
        (tmp_path / "set" / shard.name).unlink()
    again = open_dataset(tmp_path / "set")
    loader = cached(again, tmp_path / "cache", shuffle=shuffle)
    assert_equal(first, list(loader))
    assert loader.read_s == 0


def test_another_transform_has_pixels_of_its_own(ds: Dataset, tmp_path: Path) -> None:
    """What decides the pixels decides the file; mean and std of a crop that fills the picture change nothing there."""
    list(cached(ds, tmp_path))
    other = list(cached(ds, tmp_path, transform=EvalTransform(16, crop_pct=0.5)))
    assert len(list(tmp_path.glob("*.pixels"))) == 2
    assert_equal(other, list(Loader(ds, batch_size=25, transform=EvalTransform(16, crop_pct=0.5))))


def test_ranks_and_workers_share_one_cache(ds: Dataset, tmp_path: Path) -> None:
    """Each fills its part; afterwards all of it is there for anybody."""
    for rank in range(2):
        loader = cached(ds, tmp_path, rank=rank, world_size=2, threads=1)
        list(DataLoader(loader, batch_size=None, num_workers=2))
    loader = cached(ds, tmp_path)
    assert_equal(list(loader), list(Loader(ds, batch_size=25, transform=SMALL)))
    assert loader.read_s == 0
    assert len(list(tmp_path.glob("*.pixels"))) == 1


def test_a_damaged_row_is_decoded_again(ds: Dataset, tmp_path: Path) -> None:
    """A flipped bit in the cache is never believed, and is mended by the pass that finds it."""
    right = list(cached(ds, tmp_path))
    (path,) = tmp_path.glob("*.pixels")
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)
    mending, after = cached(ds, tmp_path), cached(ds, tmp_path)
    assert_equal(list(mending), right)
    assert mending.read_s > 0
    assert_equal(list(after), right)
    assert after.read_s == 0


def test_unreadable_samples_are_not_cached(damaged: Dataset, tmp_path: Path) -> None:
    """A sample that could not be read stays so, in each pass."""
    for _ in range(2):
        batches = list(cached(damaged, tmp_path / "cache", on_error="record"))
        assert [int(batch.valid.sum()) for batch in batches] == [24, 25, 24, 25, 20]


def test_the_size_is_said_before_it_is_made(ds: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line at the level of information names size and folder."""
    with caplog.at_level(logging.INFO, logger="wds_real.data.decode_stage"):
        cached(ds, tmp_path)
    assert [record.getMessage().startswith("pixel cache: 0.0 GB in") for record in caplog.records] == [True]


def test_a_cache_needs_a_transform_that_describes_its_pixels(ds: Dataset, tmp_path: Path) -> None:
    """The pixels of any other function could not be told from those of another one."""
    with pytest.raises(ValueError, match="pixel_cache needs an EvalTransform"):
        cached(ds, tmp_path, transform=lambda image: image.resize((4, 4)))


def test_a_loader_with_a_cache_goes_to_other_processes(ds: Dataset, tmp_path: Path) -> None:
    """Pickled, it opens the same file."""
    expected = list(cached(ds, tmp_path))
    again: Loader = pickle.loads(pickle.dumps(cached(ds, tmp_path)))  # noqa: S301 -- our own bytes
    assert_equal(list(again), expected)


def test_evaluate_reads_the_cache_and_says_where_the_time_went(ds: Dataset, tmp_path: Path) -> None:
    """The second evaluation decodes nothing and has the same result; the stages' seconds and the slowest are named."""
    model, transform = known_answer_model()
    options = EvalOptions(batch_size=32, threads=2, pixel_cache=str(tmp_path))
    first, second = (evaluate(model, ds, transform=transform, options=options) for _ in range(2))
    facts = [{name: value for name, value in result.as_dict().items() if name != "run"} for result in (first, second)]
    assert facts[0] == facts[1]
    timings = second.run["timings"]
    assert timings["reading_thread_s"] == 0
    assert first.run["timings"]["decoding_thread_s"] > 0
    assert timings["bottleneck"] in ("model", "normalising", "reading", "decoding")
    assert timings["waited_for_data_s"] <= timings["total_s"]
    gc.collect()


def test_the_labels_of_a_batch_are_those_of_the_index(ds: Dataset) -> None:
    """Rows of any order get their own labels, padded rows -1 and an empty key."""
    view = ds[::-7]
    (batch,) = Loader(view, batch_size=25, transform=SMALL)
    rows = len(view)
    assert batch.key == (*view.keys, *[""] * (25 - rows))
    assert batch.index.tolist() == [*view.positions.tolist(), *[-1] * (25 - rows)]
    assert batch.original_label.tolist()[:rows] == ds.index.original_label[view.positions].tolist()
    for row, position in enumerate(view.positions):
        labels = ds.index.real_label[position]
        assert batch.real_label[row].tolist() == [*labels, *[-1] * (10 - len(labels))]
    assert np.all(batch.real_label[rows:].numpy() == -1)
    assert batch.valid.tolist() == [True] * rows + [False] * (25 - rows)
