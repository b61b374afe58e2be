"""The loader: the plan's batches, whole, in order and exactly once, however they are asked for."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import shutil
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from wds_real import Batch, Dataset, EvalTransform, Loader, PlanError, ShardError, collate, open_dataset
from wds_real.data.plan import shuffled_order
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image

SMALL = EvalTransform(16)


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """120 samples in three shards."""
    return open_dataset(packed)


@pytest.fixture
def damaged(packed: Path, tmp_path: Path) -> Dataset:
    """The same set, a byte changed in the pictures at positions 7, 60 and 119."""
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    dataset = open_dataset(tmp_path)
    for row in (7, 60, 119):
        shard = tmp_path / dataset.manifest.shards[dataset.index.shard[row]].name
        data = bytearray(shard.read_bytes())
        data[dataset.index.offset[row] + 300] ^= 1
        shard.write_bytes(data)
    return dataset


def loader_of(dataset: Dataset, **settings_of: Any) -> Loader:
    return Loader(dataset, **{"batch_size": 25, "transform": SMALL, "threads": 2, **settings_of})


def keys_of(batches: Any) -> list[tuple[str, ...]]:
    return [batch.key for batch in batches]


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    """Compare all fields of all batches."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.key, one.number) == (other.key, other.number)
        for name in ("image", "original_label", "real_label", "index", "valid"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def as_image(image: Image.Image) -> Image.Image:
    return image.resize((20, 10))


def as_array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(image.resize((20, 10)))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(as_array(image).copy()).permute(2, 0, 1).float() / 255 - 0.5


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


# --- what a batch holds -----------------------------------------------------------------------------------------------


def test_batches_hold_the_samples_of_the_data_set_in_order(ds: Dataset) -> None:
    """Without shuffling, row by row, a batch's pixels, labels, key and index are those of the data set."""
    batches = list(loader_of(ds))
    assert [len(batch) for batch in batches] == [25] * 5
    rows = [(batch, row) for batch in batches for row in range(len(batch)) if batch.valid[row]]
    assert len(rows) == len(ds) == 120
    for (batch, row), sample in zip(rows, ds, strict=True):
        assert (batch.key[row], int(batch.index[row])) == (sample["key"], sample["index"])
        assert int(batch.original_label[row]) == sample["original_label"]
        padding = [-1] * (10 - len(sample["real_label"]))
        assert batch.real_label[row].tolist() == sample["real_label"] + padding
        assert np.array_equal(batch.image[row].permute(1, 2, 0).numpy(), np.asarray(SMALL(sample["image"])))


def test_form_of_a_batch(ds: Dataset) -> None:
    """Pixels are uint8 (B, 3, H, W) in channels-last memory; labels and index int64; valid bool; labels ten wide."""
    batch = next(iter(loader_of(ds, transform=EvalTransform((12, 20)))))
    assert batch.image.shape == (25, 3, 12, 20)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.real_label.shape == (25, 10)
    assert {batch.original_label.dtype, batch.real_label.dtype, batch.index.dtype} == {torch.int64}
    assert batch.valid.dtype == torch.bool
    assert batch.to("cpu").key == batch.key


def test_the_last_batch_is_padded(ds: Dataset) -> None:
    """A short batch keeps its shape: padded rows are not valid, have -1, "" and zero pixels."""
    last = list(loader_of(ds, batch_size=50))[-1]
    assert last.image.shape == (50, 3, 16, 16)
    assert last.valid.tolist() == [True] * 20 + [False] * 30
    assert last.key[20:] == ("",) * 30
    assert set(last.index[20:].tolist()) == set(last.original_label[20:].tolist()) == {-1}
    assert set(last.real_label[20:].flatten().tolist()) == {-1}
    assert not last.image[20:].any()
    assert last.image[:20].any()


def test_without_padding_there_are_real_rows_only(ds: Dataset) -> None:
    """pad=False ends with a short batch, and gives a rank no more batches than it has."""
    loader = loader_of(ds, batch_size=50, pad=False)
    assert [len(batch) for batch in loader] == [50, 50, 20]
    assert all(bool(batch.valid.all()) for batch in loader)
    assert [len(loader_of(ds, batch_size=50, pad=False, rank=rank, world_size=2)) for rank in range(2)] == [1, 2]
    assert [len(loader_of(ds, batch_size=50, pad=True, rank=rank, world_size=2)) for rank in range(2)] == [2, 2]


def test_a_part_of_the_data_set_keeps_its_positions(ds: Dataset) -> None:
    """Over a slice, index is the position in the whole set, and the order is the slice's."""
    (batch,) = loader_of(ds[100:10:-9], batch_size=10)
    assert batch.index.tolist() == list(range(100, 10, -9))
    assert batch.key == tuple(ds.index.keys[row] for row in range(100, 10, -9))


def test_an_empty_data_set_has_no_batch(ds: Dataset) -> None:
    """No sample, no batch, no error."""
    loader = loader_of(ds[:0])
    assert len(loader) == 0
    assert list(loader) == []


# --- order ------------------------------------------------------------------------------------------------------------


def test_shuffle_is_the_plans_order_for_seed_and_epoch(ds: Dataset) -> None:
    """The permutation is the plan's, anew for each seed and each epoch, and the same again for the same ones."""
    loader, seen = loader_of(ds, shuffle=True, seed=3), []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        seen.append(list(itertools.chain(*keys_of(loader))))
        order = shuffled_order(ds.keys, seed=3, epoch=epoch)
        assert [key for key in seen[-1] if key] == [ds.keys[place] for place in order]
    assert seen[0] == seen[2] != seen[1]
    assert keys_of(loader_of(ds, shuffle=True, seed=4))[0] != keys_of(loader_of(ds, shuffle=True, seed=3))[0]


def test_epoch_changes_nothing_without_shuffle(ds: Dataset) -> None:
    """Without shuffle every epoch is in key order."""
    loader = loader_of(ds)
    before = keys_of(loader)
    loader.set_epoch(5)
    assert keys_of(loader) == before


def test_set_epoch_is_for_the_next_iter(ds: Dataset) -> None:
    """An iterator that was made before `set_epoch` keeps the order it was made with."""
    loader = loader_of(ds, shuffle=True)
    first = keys_of(loader)
    iterator = iter(loader)
    loader.set_epoch(1)
    assert keys_of(iterator) == first
    assert keys_of(loader) != first


@given(
    num_samples=st.integers(0, 23),
    batch_size=st.integers(1, 7),
    world_size=st.integers(1, 6),
    threads=st.integers(1, 5),
    shuffle=st.booleans(),
    pad=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_ranks_share_out_the_same_batches(
    *, ds: Dataset, num_samples: int, batch_size: int, world_size: int, threads: int, shuffle: bool, pad: bool
) -> None:
    """Over all ranks each sample comes once, and the batches are those of one process, whatever world and threads."""
    part, tiny = ds[:num_samples], EvalTransform(8)
    common: dict[str, Any] = {"batch_size": batch_size, "transform": tiny, "shuffle": shuffle, "pad": pad}
    alone = list(Loader(part, threads=1, **common))
    loaders = [Loader(part, rank=r, world_size=world_size, threads=threads, **common) for r in range(world_size)]
    shares = [list(loader) for loader in loaders]
    assert [len(share) for share in shares] == [len(loader) for loader in loaders]
    assert Counter(key for share in shares for batch in share for key in batch.key if key) == Counter(part.keys)
    if pad:
        assert {len(share) for share in shares} == {-(-len(alone) // world_size)}
        assert all(len(batch) == batch_size for share in shares for batch in share)
    assert_equal([batch for share in shares for batch in share if bool(batch.valid.any())], alone)


def test_what_is_left_of_the_plan(ds: Dataset) -> None:
    """Given `batches`, the loader goes through these alone, shared out, with their numbers and full content."""
    whole = list(loader_of(ds))
    assert [batch.number for batch in whole] == [0, 1, 2, 3, 4]
    left = [4, 1, 3]
    assert_equal(list(loader_of(ds, batches=left)), [whole[number] for number in left])
    loaders = [loader_of(ds, batches=left, rank=rank, world_size=2) for rank in range(2)]
    assert [loader.num_samples for loader in loaders] == [20, 50]
    assert [[batch.number for batch in loader] for loader in loaders] == [[4, -1], [1, 3]]


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"},
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "0"},
    ],
)
def test_rank_and_world_size_come_from_the_launcher(
    ds: Dataset, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun or srun a rank takes its own share without being told; what it is told wins."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (
        keys_of(loader_of(ds))
        == keys_of(loader_of(ds, rank=1, world_size=3))
        != keys_of(loader_of(ds, rank=0, world_size=3))
    )
    assert sum(len(batch) for batch in loader_of(ds, rank=0, world_size=1)) == 125


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 1}, "give both"),
        ({"world_size": 2}, "give both"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
        ({"rank": -1, "world_size": 2}, "rank is -1"),
        ({"rank": 0, "world_size": 0}, "world_size is 0"),
        ({"batches": [0, 5]}, "batch"),
        ({"batches": [-1]}, "batch"),
    ],
)
def test_impossible_plans_are_refused(ds: Dataset, wrong: dict[str, Any], says: str) -> None:
    """What cannot be is a PlanError when the loader is made."""
    with pytest.raises(PlanError, match=says):
        loader_of(ds, **wrong)


def test_an_unknown_way_to_treat_errors_is_refused(ds: Dataset) -> None:
    """A misspelt `on_error` does not quietly mean that errors are passed over."""
    with pytest.raises(ValueError, match="on_error"):
        loader_of(ds, on_error="Raise")


# --- iterating, stopping, going on ------------------------------------------------------------------------------------


def test_iterating_again_starts_at_the_beginning(ds: Dataset) -> None:
    """Two passes are equal, also after a pass that was left early."""
    loader = loader_of(ds)
    first = list(loader)
    for batch in loader:
        assert batch.key == first[0].key
        break
    assert_equal(list(loader), first)


def test_iterators_do_not_disturb_each_other(ds: Dataset) -> None:
    """Two iterators over one loader, taken in turn, each give everything."""
    loader = loader_of(ds)
    whole = keys_of(loader)
    assert [(one.key, other.key) for one, other in zip(loader, loader, strict=True)] == list(
        zip(whole, whole, strict=True)
    )


def test_batches_that_were_let_go_give_their_memory_to_later_ones(ds: Dataset) -> None:
    """However many batches pass, a handful of memory areas hold them: it does not grow from pass to pass."""
    loader = loader_of(ds, batch_size=4)
    places = {batch.image.data_ptr() for _ in range(3) for batch in loader}
    assert 1 <= len(places) <= 5
    assert 3 * len(loader) == 90


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch.image,
        lambda batch: batch.image[1],
        lambda batch: batch.image[1].numpy()[0],
        lambda batch: torch.utils.dlpack.from_dlpack(batch.image[1]),
        lambda batch: memoryview(batch.image.numpy().transpose(0, 2, 3, 1)[1].reshape(-1)),
    ],
    ids=["image", "row", "array", "dlpack", "memoryview"],
)
def test_what_is_kept_of_a_batch_never_changes(ds: Dataset, keep: Callable[[Batch], Any]) -> None:
    """Any view of the pixels, whatever library it goes through, holds the memory as the batch itself does."""
    loader = loader_of(ds, batch_size=4)
    kept = [(view, np.asarray(view).copy()) for view in map(keep, loader)]
    for _ in range(2):
        for _batch in loader:
            pass
    assert all(np.array_equal(np.asarray(view), copy) for view, copy in kept)
    assert len({copy.tobytes() for _, copy in kept}) > 1


def test_no_thread_outlives_its_iterator(ds: Dataset, damaged: Dataset) -> None:
    """The decoding threads end with the pass, also if it is left early or fails."""
    for _ in loader_of(ds, threads=3):
        assert decoding_threads()
        break
    assert decoding_threads() == []
    with pytest.raises(ShardError):
        list(loader_of(damaged))
    assert decoding_threads() == []


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_state_goes_on_with_the_next_batch(ds: Dataset, world_size: int, *, shuffle: bool) -> None:
    """From the state after any number of batches, a new loader yields exactly the batches that are left, once."""
    common: dict[str, Any] = {"batch_size": 17, "shuffle": shuffle, "rank": world_size - 1, "world_size": world_size}
    loader = loader_of(ds, **common)
    loader.set_epoch(2)
    whole = list(loader)
    for taken in range(len(whole) + 1):
        interrupted = loader_of(ds, **common)
        interrupted.set_epoch(2)
        iterator = iter(interrupted)
        for _ in range(taken):
            next(iterator)
        state = json.loads(json.dumps(interrupted.state_dict()))
        resumed = loader_of(ds, **common)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert_equal(list(resumed), whole[taken:])
        assert_equal(list(resumed), whole)


def test_the_state_of_a_new_epoch_is_at_its_start(ds: Dataset) -> None:
    """A state taken after `set_epoch`, before the epoch's first batch, resumes to the whole epoch, not to its end."""
    loader = loader_of(ds, shuffle=True)
    assert len(list(loader)) == 5
    loader.set_epoch(1)
    resumed = loader_of(ds, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    assert keys_of(resumed) == keys_of(loader)


def test_set_epoch_of_the_same_epoch_keeps_the_place(ds: Dataset) -> None:
    """A training loop that calls `set_epoch` first thing after loading a state still goes on in mid-epoch."""
    loader = loader_of(ds, shuffle=True)
    loader.set_epoch(1)
    whole = keys_of(loader)
    iterator = iter(loader)
    next(iterator)
    resumed = loader_of(ds, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(1)
    assert keys_of(resumed) == whole[1:]


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 24},
        {"seed": 1},
        {"shuffle": True},
        {"rank": 1, "world_size": 2},
        {"rank": 0, "world_size": 2},
    ],
)
def test_a_state_of_another_run_is_refused(ds: Dataset, other: dict[str, int]) -> None:
    """A place in other batches means nothing here: PlanError names what differs, with both values."""
    state = loader_of(ds, rank=0, world_size=1).state_dict()
    with pytest.raises(PlanError) as caught:
        loader_of(ds, **{"rank": 0, "world_size": 1, **other}).load_state_dict(state)
    differing = {name for name, value in other.items() if state[name] != value}
    for name in differing:
        assert f"{name} was {state[name]}, is {other[name]}" in str(caught.value)


def test_a_state_of_other_samples_is_refused(ds: Dataset) -> None:
    """A state of another split or of other batches is refused, and so is what is no state at all."""
    with pytest.raises(PlanError, match="split was validation, is validation"):
        loader_of(ds[:60]).load_state_dict(loader_of(ds).state_dict())
    with pytest.raises(PlanError, match="batches"):
        loader_of(ds, batches=[1]).load_state_dict(loader_of(ds, batches=[0]).state_dict())
    with pytest.raises(PlanError, match="dataset was None"):
        loader_of(ds).load_state_dict({})


# --- under torch's DataLoader -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (3, "fork"), (2, "spawn")])
def test_data_loader_workers_keep_the_order(ds: Dataset, workers: int, start: str | None) -> None:
    """DataLoader(loader, batch_size=None) gives the same batches in the same order for any number of workers."""
    loader = loader_of(ds, shuffle=True, batch_size=22)
    workers_of = DataLoader(loader, batch_size=None, num_workers=workers, multiprocessing_context=start)
    assert len(workers_of) == 6
    assert_equal(list(workers_of), list(loader))


def test_data_loader_workers_go_on_from_a_state(ds: Dataset) -> None:
    """A state that was loaded before holds in worker processes too."""
    loader = loader_of(ds)
    iterator = iter(loader)
    next(iterator)
    resumed = loader_of(ds)
    resumed.load_state_dict(loader.state_dict())
    found = keys_of(DataLoader(resumed, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    assert found == keys_of(loader)[1:]


def test_map_style_data_set_under_data_loader(packed: Path) -> None:
    """DataLoader(ds, collate_fn=collate) gives the batches of a Loader that does not pad."""
    dataset: Any = open_dataset(packed, transform=SMALL)
    batches: Any = DataLoader(
        dataset, batch_size=25, collate_fn=collate, num_workers=2, multiprocessing_context="fork"
    )  # fmt: skip
    expected = [replace(batch, number=-1) for batch in loader_of(dataset, pad=False)]
    assert_equal(list(batches), expected)


def test_errors_of_workers_name_the_sample(damaged: Dataset) -> None:
    """A damaged sample read in a worker process ends the pass with an error that names it."""
    workers = DataLoader(loader_of(damaged), batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(ShardError, match=damaged.index.keys[7]):
        list(workers)


# --- transforms of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [as_image, as_array])
def test_transforms_that_give_pixels(ds: Dataset, transform: Any) -> None:
    """A Pillow image or an array (H, W, 3) becomes uint8 (B, 3, H, W)."""
    batch = next(iter(loader_of(ds, transform=transform)))
    assert batch.image.shape == (25, 3, 10, 20)
    assert batch.image.dtype == torch.uint8
    for row in range(25):
        assert np.array_equal(batch.image[row].permute(1, 2, 0), as_array(ds[row]["image"]))


def test_transforms_that_give_floats(ds: Dataset) -> None:
    """A float tensor (C, H, W) is passed on as it is; padded rows are zero."""
    *_, last = loader_of(ds, transform=as_tensor)
    assert last.image.dtype == torch.float32
    for row in range(20):
        assert torch.equal(last.image[row], as_tensor(ds[100 + row]["image"]))
    assert not last.image[20:].any()


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(lambda image: image, id="sizes differ"),
        pytest.param(lambda image: as_tensor(image) if image.width > 300 else as_array(image), id="dtypes differ"),
        pytest.param(lambda image: as_image(image).convert("L"), id="no channels"),
        pytest.param(lambda image: as_image(image).convert("L" if image.width < 300 else "RGB"), id="channels differ"),
        pytest.param(lambda image: as_tensor(image)[None], id="batch dimension"),
    ],
)
def test_transforms_whose_outputs_do_not_make_a_batch(ds: Dataset, transform: Any) -> None:
    """Images of differing or wrong shape are a ValueError that blames the transform and tells the shapes."""
    with pytest.raises(ValueError, match=r"transform gave .*\d"):
        list(loader_of(ds, transform=transform))


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damage_is_raised_with_its_place(damaged: Dataset) -> None:
    """By default the first damaged sample in plan order ends the pass, after the batches before it."""
    for _ in range(3):
        iterator = iter(loader_of(damaged[50:], batch_size=10, threads=4))
        assert next(iterator).valid.all()
        with pytest.raises(ShardError) as caught:
            list(iterator)
        error = caught.value
        assert error.key == f"{damaged.index.keys[60]}.jpg"
        assert error.shard == "imagenet2012_real-validation-000001.tar"
        start = int(damaged.index.offset[60])
        assert error.byte_range == (start, start + int(damaged.index.num_bytes[60]))
        assert "checksum" in str(error)
        assert "wds-real verify" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 -- our own bytes


def test_damage_is_recorded_on_request(ds: Dataset, damaged: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """on_error="record" keeps a damaged sample's index, key and labels, marks it not valid, and logs it."""
    whole, found = list(loader_of(ds)), list(loader_of(damaged, on_error="record"))
    failed = [int(batch.index[row]) for batch in found for row in range(25) if batch.key[row] and not batch.valid[row]]
    assert failed == [7, 60, 119]
    for one, other in zip(whole, found, strict=True):
        assert one.key == other.key
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.original_label, other.original_label)
        assert torch.equal(one.image[other.valid], other.image[other.valid])
        assert not other.image[~other.valid].any()
    for row in failed:
        assert damaged.index.keys[row] in caplog.text


def test_a_picture_that_cannot_be_decoded(tmp_path: Path) -> None:
    """Bytes that are as they were packed but no whole picture are raised with key and place, or recorded."""
    for number in (1, 2, 3):
        data = encode_image(number)
        (tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(data[: len(data) // 2] if number == 2 else data)
    with open_source(tmp_path, allow_partial=True) as source:
        write_shards(source, LocalStore(tmp_path / "packed"))
    dataset = open_dataset(tmp_path / "packed")
    for transform in (SMALL, as_image):
        with pytest.raises(ShardError, match=r"ILSVRC2012_val_00000002.jpg \[bytes .*cannot be decoded"):
            list(loader_of(dataset, transform=transform))
        (batch,) = loader_of(dataset, transform=transform, on_error="record", batch_size=3)
        assert batch.valid.tolist() == [True, False, True]
    with pytest.raises(ShardError, match=r"ILSVRC2012_val_00000002.jpg \[bytes .*cannot be decoded"):
        dataset[1]


def test_a_shard_that_is_gone_is_a_shard_error(packed: Path, tmp_path: Path) -> None:
    """A shard deleted after opening is an error that names the sample, the shard and what to do."""
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    dataset = open_dataset(tmp_path)
    (tmp_path / "imagenet2012_real-validation-000002.tar").unlink()
    assert len(list(loader_of(dataset[:100]))) == 4
    with pytest.raises(ShardError, match=r"000002.tar: ILSVRC2012_val_00000101.jpg .*No such file"):
        list(loader_of(dataset))


def test_accelerate_does_not_share_the_batches_out_again(packed: Path) -> None:
    """Its prepared DataLoader calls set_epoch before a pass: from there it is refused, from elsewhere it is taken."""
    loader = Loader(open_dataset(packed), batch_size=16)
    loader.set_epoch(1)
    for module, refused in (("accelerate.data_loader", True), ("accelerated", False)):
        names = {"__name__": module, "loader": loader}
        with pytest.raises(PlanError, match="Give it the Loader itself") if refused else contextlib.nullcontext():
            exec("loader.set_epoch(2)", names)  # noqa: S102 -- as a module of that name would call it
    assert loader.epoch == 2
