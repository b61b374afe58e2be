"""Map-style access: samples by place and key, slices, splits."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wds_real import Dataset, EvalTransform, ManifestError, PlanError, StoreError, open_dataset
from wds_real.data.splits import split_positions
from wds_real.format.manifest import ShardInfo
from wds_real.format.root import Provenance, write_root
from wds_real.format.sample_index import SampleRow
from wds_real.labels import Label, bundled
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

N = 120


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images."""
    return open_dataset(packed)


def key(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def test_a_sample_is_the_source_image_and_its_labels(ds: Dataset, made_tar: Path) -> None:
    """Each sample has the pixels of the source's JPEG and the bundled labels of its file name."""
    with tarfile.open(made_tar) as tar:
        for number in (1, 2, 50, 51, 100, 101, 120):
            label = bundled().by_file_name(f"{key(number)}.JPEG")
            file = tar.extractfile(label.file_name)
            assert file is not None
            sample = ds[number - 1]
            image = sample.pop("image")  # type: ignore[misc]  # the rest compares as a whole
            assert image.mode == "RGB"
            assert image.tobytes() == Image.open(io.BytesIO(file.read())).convert("RGB").tobytes()
            assert sample == {
                "file_name": label.file_name,
                "original_label": label.original_label,
                "real_label": list(label.real_label),
                "key": key(number),
                "index": number - 1,
            }


def test_the_off_by_one_canary(ds: Dataset) -> None:
    """Image 1 has original label 65 and no ReaL label."""
    assert (ds[0]["original_label"], ds[0]["real_label"]) == (65, [])


def test_access_by_place_and_by_name(ds: Dataset) -> None:
    """Places may be negative or of numpy's types; names may carry the extension."""
    assert len(ds) == N
    items: tuple[Any, ...] = (2, -118, np.int64(2), key(3), f"{key(3)}.JPEG")
    for item in items:
        assert ds[item]["key"] == key(3)
    assert [sample["key"] for sample in ds] == [key(number) for number in range(1, N + 1)] == list(ds.keys)


@pytest.mark.parametrize("place", [N, -N - 1, 10**9])
def test_a_place_outside_is_an_index_error(ds: Dataset, place: int) -> None:
    """Nothing wraps around."""
    with pytest.raises(IndexError):
        ds[place]


@pytest.mark.parametrize("name", [key(121), "", "ILSVRC2012_val_1", "zzz", key(1).lower()])
def test_an_unknown_key_is_a_key_error(ds: Dataset, name: str) -> None:
    """The error names the key and the data set."""
    assert name not in ds
    with pytest.raises(KeyError, match=f"{name}: not one of the 120 samples"):
        ds[name]


def test_membership_is_what_access_accepts(ds: Dataset) -> None:
    """`in` is true of keys and file names of this view, and of nothing else."""
    assert key(5) in ds
    assert f"{key(5)}.JPEG" in ds
    assert key(5) not in ds[10:]
    assert 5 not in ds
    assert None not in ds


@given(
    start=st.none() | st.integers(-150, 150),
    stop=st.none() | st.integers(-150, 150),
    step=st.none() | st.integers(-9, 9).filter(bool),
)
def test_slices_are_those_of_a_list(ds: Dataset, start: int | None, stop: int | None, step: int | None) -> None:
    """A slice is a data set of what a list's slice would hold, each sample keeping its position in the whole."""
    part, expected = ds[start:stop:step], list(range(N))[start:stop:step]
    assert part.positions.tolist() == expected
    assert len(part) == len(expected)
    assert part.keys == tuple(key(position + 1) for position in expected)
    assert [sample["index"] for sample in part[:2]] == expected[:2]


def test_a_view_holds_its_own_samples_only(ds: Dataset) -> None:
    """Places count within the view; keys outside of it are unknown; its name says what it is."""
    part = ds[100:][5:10]
    assert part[0]["key"] == key(106)
    assert part[key(106)]["index"] == 105
    assert part.split == "validation[100:][5:10]"
    assert ds[::-2].split == "validation[::-2]"
    assert part.digest == ds.digest
    for outside in (key(105), key(111)):
        with pytest.raises(KeyError):
            part[outside]
    with pytest.raises(IndexError):
        part[5]


def closest(text: str, length: int) -> list[int]:
    """Apply TFDS's rule to ``[FROM:TO]``: ``int(round(percent * N / 100.))``, negatives from the end, then clamp."""
    bounds = []
    for part, default in zip(text[1:-1].split(":"), (0, length), strict=True):
        bound = int(round(int(part[:-1]) * length / 100.0)) if part.endswith("%") else int(part or default)  # noqa: RUF046
        bounds.append(min(max(length + bound, 0) if bound < 0 else bound, length))
    return list(range(*bounds))


@given(
    length=st.integers(1, 60_000),
    percents=st.booleans(),
    start=st.none() | st.integers(-100, 100),
    stop=st.none() | st.integers(-100, 100),
)
def test_splits_are_cut_as_by_tfds(*, length: int, percents: bool, start: int | None, stop: int | None) -> None:
    """Percents round to the closest sample, half to even, as TFDS documents; plain numbers are places."""
    unit = "%" if percents else ""
    text = f"[{'' if start is None else f'{start}{unit}'}:{'' if stop is None else f'{stop}{unit}'}]"
    found = split_positions(f"validation{text}", "validation", length).tolist()
    assert list(found) == closest(text, length)


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("validation", range(1, 121)),
        ("validation[:10%]", range(1, 13)),
        ("validation[99%:]", range(120, 121)),
        ("validation[-2%:]", range(119, 121)),
        ("validation[50:60]", range(51, 61)),
        (" validation [ 50 : 60 ] ", range(51, 61)),
        ("validation[:]", range(1, 121)),
    ],
)
def test_open_a_split(packed: Path, split: str, numbers: range) -> None:
    """A data set opened with a split holds these samples."""
    assert open_dataset(packed, split=split).keys == tuple(key(number) for number in numbers)


@pytest.mark.parametrize(
    "split",
    ["", "train", "train[:5]", "validation[5]", "validation[:5", "validation[::0]", "validation[:5]x", "validation[a:]",
     "validation[:1.5%]", "validation[%:]", "validation[:5]+validation[5:]", f"validation[{'9' * 5000}:]",
     f"validation[::{'9' * 5000}]", f"{'v' * 100_000}"],
)  # fmt: skip
def test_a_split_that_is_none_is_a_plan_error(packed: Path, split: str) -> None:
    """What is not in the notation, or not of this set, is refused with an example."""
    with pytest.raises(PlanError, match=r"expected 'validation' or a part of it such as 'validation\[:10%\]'"):
        open_dataset(packed, split=split)


def test_the_parts_of_a_partition_hold_everything_once(ds: Dataset, packed: Path) -> None:
    """Cut at any percents, the parts follow each other without gap or overlap."""
    cuts = [0, 7, 33, 50, 99, 100]
    parts = [open_dataset(packed, split=f"validation[{a}%:{b}%]") for a, b in itertools.pairwise(cuts)]
    assert tuple(name for part in parts for name in part.keys) == ds.keys


@pytest.mark.parametrize("view", [slice(None), slice(7, 90, 4), slice(None, None, -3), slice(5, 6), slice(0, 0)])
def test_a_key_is_found_in_the_views_that_have_it(ds: Dataset, view: slice) -> None:
    """Forwards, backwards and in steps, a view has the keys of its own samples and no others."""
    part = ds[view]
    assert [name for name in ds.keys if name in part] == sorted(part.keys)


def test_fifty_thousand_shards_open_in_seconds(tmp_path: Path) -> None:
    """The work at an open grows with the number of shards, not with its square: 0.5 s, where it was 40 s."""
    count = 50_000
    rows = [
        SampleRow(Label(f"{number:06d}.JPEG", number % 1000, (1,)), number, 512, 10, 1536, 20, 7, 5, 5)
        for number in range(count)
    ]
    shards = [ShardInfo(f"{number:06d}.tar", 1, 3072, "6" * 64) for number in range(count)]
    write_root(LocalStore(tmp_path), rows, shards, Provenance(partial=True, source_digest=""))
    spent = []
    for _ in range(2):  # the better of two, since other processes take the caches of the processor away
        started = time.process_time()
        assert len(open_dataset(tmp_path)) == count
        spent.append(time.process_time() - started)
    assert min(spent) < 10


def test_the_transform_is_applied_to_single_samples(packed: Path) -> None:
    """`ds[i]["image"]` is what the transform made of the picture, in views too."""
    plain, dataset = open_dataset(packed), open_dataset(packed, transform=EvalTransform(32))
    for view in (dataset, dataset[3:]):
        assert view[5]["image"] == EvalTransform(32)(plain[view[5]["index"]]["image"])


def test_data_sets_survive_pickling(packed: Path) -> None:
    """A copy sent to another process reads the same samples."""
    dataset = open_dataset(packed, transform=EvalTransform(16), split="validation[10:20]")
    copy: Any = pickle.loads(pickle.dumps(dataset))  # noqa: S301 -- our own bytes
    assert (copy.keys, copy.split, copy.digest, repr(copy)) == (
        dataset.keys, dataset.split, dataset.digest, repr(dataset),
    )  # fmt: skip
    assert copy[3]["image"] == dataset[3]["image"]


def test_as_data_frame(ds: Dataset) -> None:
    """One row a sample, by position, with labels and sizes as in the samples."""
    pytest.importorskip("pandas")
    frame = ds[20:10:-3].as_dataframe()
    assert frame.index.tolist() == [20, 17, 14, 11]
    for row in frame.itertuples():
        sample = ds[row.Index]
        assert (row.key, row.file_name) == (sample["key"], sample["file_name"])
        assert (row.original_label, row.real_label) == (sample["original_label"], sample["real_label"])
        assert (row.width, row.height) == sample["image"].size
        assert row.num_bytes > 0


def test_repr_says_what_it_is(ds: Dataset) -> None:
    """Where it lies, which part, how many samples, and the identity."""
    assert repr(ds[:7]).startswith("Dataset('")
    assert f"split='validation[:7]', 7 samples, digest={ds.digest[:12]})" in repr(ds[:7])


def test_opening_what_is_no_data_set(tmp_path: Path, packed: Path) -> None:
    """An empty, missing or unfinished folder is an error that says what to do; so is a URL of an unknown kind."""
    (tmp_path / "index.json").write_bytes((packed / "index.json").read_bytes())
    with pytest.raises(StoreError, match="no such folder"):
        open_dataset(tmp_path / "missing")
    for root in (tmp_path, str(tmp_path)):
        with pytest.raises(ManifestError, match=r"no manifest.json, so this is not a finished data set.*wds-real pack"):
            open_dataset(root)
    with pytest.raises(StoreError, match=r"^ftp://\.\.\.: no such kind of store"):
        open_dataset("ftp://bucket/set?token=secret")
