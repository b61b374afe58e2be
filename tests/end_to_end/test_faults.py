"""Kills, full disks, cut and damaged files, stores that refuse: never a set that looks whole and is not."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import messages

from wds_real.data.dataset import open_dataset
from wds_real.errors import ManifestError, SourceError, StoreError
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image, write_source_tar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wds_real.format.manifest import Manifest
    from wds_real.packing.source import Source
    from wds_real.storage.base import ByteWriter, Store

PACK = (sys.executable, "-m", "wds_real", "pack")

# Packs, and at the n-th event (a picture done, or a file about to be put or just put) does what the fault says.
CHILD = """
import contextlib, itertools, os, signal, sys
from pathlib import Path
from wds_real.packing.source import open_source
from wds_real.storage.local import LocalStore
from wds_real.packing.writer import write_shards

source, root, moment = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
events = itertools.count(1)

def event(*_):
    if next(events) == moment:
        os.kill(os.getpid(), signal.SIGKILL)

class Store(LocalStore):
    @contextlib.contextmanager
    def _written(self, name, *, exclusive):
        event()
        with super()._written(name, exclusive=exclusive) as file:
            yield file
            event()
        event()

with open_source(source, allow_partial=True) as images:
    write_shards(images, Store(root), samples_per_shard=50, jobs=2, progress=event)
print(next(events) - 1)
"""
NUM_EVENTS = 120 + 3 * 5  # pictures, and three for each of three shards, index and manifest


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pack(source: Path, store: Store) -> Manifest:
    with open_source(source, allow_partial=True) as opened:
        return write_shards(opened, store, samples_per_shard=50, jobs=2)


def child(source: Path, root: Path, moment: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(source), str(root), str(moment)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def check_killed(source: Path, root: Path, moment: int, expected: dict[str, bytes]) -> None:
    assert child(source, root, moment).returncode == -signal.SIGKILL
    left = tree(root)
    for name in expected.keys() & left.keys():
        assert left[name] == expected[name], f"{name} is under its final name, but not whole"
    if "manifest.json" in left:
        assert expected.items() <= left.items()
        return
    with pytest.raises((ManifestError, StoreError)):  # the folder itself may not be there yet
        open_dataset(root)
    pack(source, LocalStore(root))
    assert tree(root) == expected


@pytest.mark.parametrize("moment", [1, 2, 60, 100, NUM_EVENTS - 6, *range(NUM_EVENTS - 5, NUM_EVENTS + 1)])
def test_a_killed_packing_is_never_taken_for_whole_and_ends_the_same(
    made_tar: Path, packed: Path, tmp_path: Path, moment: int
) -> None:
    """Killed at any moment: no half file under its name, no set to be read; run again: the same bytes, nothing left."""
    check_killed(made_tar, tmp_path, moment, tree(packed))


@pytest.mark.slow
def test_a_packing_killed_at_every_moment_ends_the_same(made_tar: Path, packed: Path, tmp_path: Path) -> None:
    """The same for each picture, and around the writing of each file."""
    for moment in range(1, NUM_EVENTS + 1):
        check_killed(made_tar, tmp_path / str(moment), moment, tree(packed))


def test_the_script_knows_how_many_moments_there_are(made_tar: Path, tmp_path: Path) -> None:
    """An undisturbed run has exactly the number of events at which the others are killed."""
    assert child(made_tar, tmp_path, 0).stdout == f"{NUM_EVENTS}\n"


def test_killed_again_and_again_it_ends_the_same(made_tar: Path, packed: Path, tmp_path: Path) -> None:
    """Each killed run leaves whole shards for the next one, and only the last one's work is missing."""
    for moment in (30, 60, 10):
        assert child(made_tar, tmp_path, moment).returncode == -signal.SIGKILL
        assert not (tmp_path / "manifest.json").exists()
    pack(made_tar, LocalStore(tmp_path))
    assert tree(tmp_path) == tree(packed)


LARGER = ["--allow-partial", "--samples-per-shard", "20", "-j", "2"]


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A source that takes long enough to pack to be caught at it, and what comes of it undisturbed."""
    folder = tmp_path_factory.mktemp("larger")
    write_source_tar(folder / "val.tar", range(1, 2001))
    subprocess.run([*PACK, str(folder / "val.tar"), str(folder / "set"), *LARGER], check=True, capture_output=True)
    return folder / "val.tar", tree(folder / "set")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_command_can_be_killed_and_run_again(
    larger: tuple[Path, dict[str, bytes]], tmp_path: Path, sent: signal.Signals
) -> None:
    """Kill, interrupt or terminate ``wds-real pack`` at its work; the same command again gives an undisturbed set."""
    path, whole = larger
    command = [*PACK, str(path), str(tmp_path), *LARGER]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        while len(list(tmp_path.glob("*.tar"))) < 5:
            assert running.poll() is None, "it was done before it could be killed"
            time.sleep(0.001)
        running.send_signal(sent)
        _, said = running.communicate(timeout=200)
    assert running.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(sent, -sent)
    assert b"Traceback" not in said
    assert not (tmp_path / "manifest.json").exists()
    if sent is signal.SIGINT:
        assert said.splitlines()[-1].startswith(b"interrupted")
        assert not list(tmp_path.glob(".*"))
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "shards already there" in again.stderr
    assert tree(tmp_path) == whole


def test_a_full_disk_is_said_and_leaves_nothing_half(made_tar: Path, packed: Path, tmp_path: Path) -> None:
    """When the file system refuses a write: exit code 1, one line with the file and the reason, and no half shard."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from wds_real.cli.main import main; main(sys.argv[1:])"
    )
    options = ["--allow-partial", "--samples-per-shard", "50"]
    command = [sys.executable, "-c", limited, "pack", str(made_tar), str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = messages(done.stderr)
    assert line.startswith(f"error: {tmp_path}/imagenet2012_real-validation-00000")
    assert "File too large" in line
    assert tree(tmp_path).items() <= tree(packed).items()
    subprocess.run([*PACK, str(made_tar), str(tmp_path), *options], check=True, capture_output=True)
    assert tree(tmp_path) == tree(packed)


class RefusingStore(LocalStore):
    """A folder that refuses its n-th operation that writes, before or after it, and works otherwise."""

    def __init__(self, root: Path, refused: int) -> None:
        super().__init__(root)
        self._count, self._refused = itertools.count(), refused

    def _operation(self, name: str) -> None:
        if next(self._count) == self._refused:
            raise StoreError(f"{name}: refused.")

    @contextlib.contextmanager
    def _written(self, name: str, *, exclusive: bool) -> Iterator[ByteWriter]:
        with super()._written(name, exclusive=exclusive) as file:
            self._operation(name)
            yield file
            self._operation(name)
        self._operation(name)

    def delete(self, name: str) -> None:
        self._operation(name)
        super().delete(name)


@pytest.mark.parametrize("refused", range(15))
def test_a_store_that_refuses_leaves_no_finished_set(
    made_tar: Path, packed: Path, tmp_path: Path, refused: int
) -> None:
    """Whichever write is refused: the error comes up, what has its final name is whole, and the next run ends right."""
    with pytest.raises(StoreError, match="refused"):
        pack(made_tar, RefusingStore(tmp_path, refused))
    left = tree(tmp_path)
    assert left.items() <= tree(packed).items()
    if "manifest.json" not in left:
        pack(made_tar, LocalStore(tmp_path))
    assert tree(tmp_path) == tree(packed)


class FailingSource:
    """A source that raises at one image, and gives the others."""

    def __init__(self, source: Source, key: str, error: Exception) -> None:
        self.path, self.images, self.partial = source.path, source.images, source.partial
        self._source, self._key, self._error = source, key, error

    @contextlib.contextmanager
    def prefetch(self, images: object) -> Iterator[Iterator[bytes]]:
        yield map(self.read, images)  # type: ignore[call-overload]

    def tar(self, cancelled: object) -> None:
        """Hold only a part of the images, so that no tar is named."""

    def read(self, image: object) -> bytes:
        if image.label.key == self._key:  # type: ignore[attr-defined]
            raise self._error
        return self._source.read(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, 50, 51, 120])
@pytest.mark.parametrize("error", [SourceError("cannot be read"), OSError(5, "Input/output error"), MemoryError()])
def test_a_source_that_fails_leaves_no_manifest_and_no_half_shard(
    made_tar: Path, packed: Path, tmp_path: Path, number: int, error: Exception
) -> None:
    """An image that cannot be read ends the packing; no manifest, no half shard, nothing temporary; then it resumes."""
    with open_source(made_tar, allow_partial=True) as source:
        failing = FailingSource(source, f"ILSVRC2012_val_{number:08d}", error)
        with pytest.raises((type(error), StoreError)):
            write_shards(failing, LocalStore(tmp_path), samples_per_shard=50, jobs=2)  # type: ignore[arg-type]
    left = tree(tmp_path)
    assert "manifest.json" not in left
    assert f"imagenet2012_real-validation-{(number - 1) // 50:06d}.tar" not in left
    assert left.items() <= tree(packed).items()
    pack(made_tar, LocalStore(tmp_path))
    assert tree(tmp_path) == tree(packed)


def test_a_sources_own_error_is_not_blamed_on_the_store(made_tar: Path, tmp_path: Path) -> None:
    """An OSError while an image is read does not come up as an error of the shard that was being written."""
    with open_source(made_tar, allow_partial=True) as source:
        failing = FailingSource(source, "ILSVRC2012_val_00000001", OSError(5, "Input/output error"))
        with pytest.raises(OSError, match="Input/output error"):
            write_shards(failing, LocalStore(tmp_path))  # type: ignore[arg-type]


def test_an_interrupted_overwrite_is_no_longer_a_finished_set(made_tar: Path, tmp_path: Path) -> None:
    """Once replacing has begun, the old manifest does not vouch for a mixture of old and new shards."""
    pack(made_tar, LocalStore(tmp_path))
    with open_source(made_tar, allow_partial=True) as source, pytest.raises(StoreError, match="refused"):
        write_shards(source, RefusingStore(tmp_path, 5), samples_per_shard=30, overwrite=True, jobs=1)
    with pytest.raises(ManifestError):
        open_dataset(tmp_path)


@pytest.fixture(scope="module")
def small_tar() -> bytes:
    """Three images, as the standard library packs them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in (2, 3, 1):
            picture = encode_image(number, side=16)
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
    return buffer.getvalue()


def _end_of_members(data: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


def test_a_tar_cut_anywhere_before_its_end_marker_is_refused(
    small_tar: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No cut gives fewer images, not even one between two members, where tarfile sees a sound, shorter tar."""
    path = tmp_path_factory.mktemp("cut") / "val.tar"
    needed = _end_of_members(small_tar) + 1024
    boundaries = {place + step for place in range(0, needed, 512) for step in (-1, 0, 1)}
    for cut in sorted(boundaries | set(range(0, needed, 37))):
        if 0 <= cut < needed:
            path.write_bytes(small_tar[:cut])
            with pytest.raises(SourceError, match="not a whole tar"):
                open_source(path, allow_partial=True)
    path.write_bytes(small_tar[:needed])
    with open_source(path, allow_partial=True) as source:
        assert len(source.images) == 3


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_a_tar_header_never_loses_an_image(
    small_tar: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A header that was damaged is refused, or was damaged where it says nothing: never fewer or other images."""
    with tarfile.open(fileobj=io.BytesIO(small_tar)) as tar:
        headers = [member.offset for member in tar]
        expected = sorted((member.name, member.offset_data, member.size) for member in tar)
    changed = bytearray(small_tar)
    place = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    path.write_bytes(changed)
    with contextlib.suppress(SourceError), open_source(path, allow_partial=True) as source:
        assert [(image.label.file_name, image.offset, image.num_bytes) for image in source.images] == expected


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=3000), start=st.integers(0, 6000))
def test_no_bytes_make_anything_but_images_or_a_source_error(
    small_tar: bytes, tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: int
) -> None:
    """Whatever stands in a file that is called a tar, it gives validation images or a SourceError."""
    path = tmp_path_factory.getbasetemp() / "noise.tar"
    path.write_bytes(small_tar[:start] + noise + small_tar[start + len(noise) :])
    with contextlib.suppress(SourceError), open_source(path, allow_partial=True) as source:
        assert source.images


def test_two_packings_at_once_end_in_one_whole_set(larger: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Two processes that pack into one folder do not damage each other's work."""
    path, whole = larger
    command = [*PACK, str(path), str(tmp_path), *LARGER]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in running]
    codes = {process.returncode for process in running}
    assert 0 in codes
    assert codes <= {0, 1}
    assert not any(b"Traceback" in text for text in said)
    assert tree(tmp_path) == whole


def test_a_folder_that_cannot_be_written_is_said(made_tar: Path, tmp_path: Path) -> None:
    """A root that is a file is named, with the system's reason."""
    root = tmp_path / "set"
    root.write_bytes(b"")
    with pytest.raises(StoreError, match=str(root)):
        pack(made_tar, LocalStore(root))


def test_a_set_is_the_same_wherever_it_lies(packed: Path, tmp_path: Path) -> None:
    """Moving or copying the folder changes nothing: no path is stored in it."""
    moved = Path(shutil.copytree(packed, tmp_path / "moved set"))
    dataset = open_dataset(moved)
    assert dataset.digest == open_dataset(packed).digest
    assert not any(str(packed).encode() in data for data in tree(moved).values())
