"""The records of a run: torn records are ignored, those of another run refused."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import PredictionsError, WdsRealError
from wds_real.scoring.run.description import RUN_NAME, RunKey, read_run
from wds_real.scoring.run.frame import Record
from wds_real.scoring.run.records import RunRecords

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = RunKey({"dataset": "d" * 64, "split": "validation", "model": {"name": "m"}, "batch_size": 2})
RUN = bytes.fromhex(KEY.digest)[:16]


def record(batch: int, *, rows: int = 2, seed: int = 0) -> Record:
    """Return a record whose content is a function of its arguments, with one row that could not be read."""
    rng = np.random.default_rng([batch, rows, seed])
    classes = rng.integers(0, 1000, (rows, 5))
    probabilities = rng.random((rows, 5), dtype=np.float32)
    classes[:1], probabilities[:1] = -1, np.nan
    return Record(batch, np.arange(batch * rows, (batch + 1) * rows), classes, probabilities)


def content(found: Record) -> tuple[int, list[int], list[list[int]], bytes]:
    return found.batch, found.index.tolist(), found.classes.tolist(), found.probabilities.tobytes()


def contents(run: Path | RunRecords) -> dict[int, Any]:
    ledger = run if isinstance(run, RunRecords) else RunRecords(run, KEY)
    return {batch: content(found) for batch, found in ledger.read().by_batch.items()}


def append(ledger: RunRecords, *records: Record) -> None:
    with ledger:
        for each in records:
            ledger.append(each)


def file_of(folder: Path, *records: Record) -> Path:
    """Write records to one file of a run and return it."""
    append(RunRecords(folder, KEY), *records)
    (path,) = (folder / "records").iterdir()
    return path


# --- there and back ---------------------------------------------------------------------------------------------------


@given(
    batches=st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 6), max_size=5),
    bits=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_records_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, batches: dict[int, int], bits: int
) -> None:
    """Numbers, classes and every bit of the probabilities, also of an empty batch, in documented types."""
    folder = tmp_path_factory.mktemp("run")
    written = {batch: record(batch % 1000, rows=rows) for batch, rows in batches.items()}
    written = {b: Record(b, each.index, each.classes, each.probabilities) for b, each in written.items()}
    for each in written.values():
        each.probabilities[1:] = np.array(bits, np.uint32).view(np.float32)
    with RunRecords(folder, KEY) as ledger:
        for each in written.values():
            ledger.append(each)
        found = ledger.read().by_batch  # what was appended is on disk before the file is closed
    assert {batch: content(each) for batch, each in found.items()} == {b: content(e) for b, e in written.items()}
    for each in found.values():
        assert (each.index.dtype.str, each.classes.dtype.str, each.probabilities.dtype.str) == ("<i8", "<i8", "<f4")
        assert each.classes.flags.writeable


def test_a_frame_is_laid_out_as_documented() -> None:
    """Magic, batch, rows, run key, rows, checksum: little-endian, read by nothing but struct."""
    frame = record(7).encode(RUN)
    assert len(frame) == 4 + 4 + 4 + 16 + 2 * (4 + 5 * 2 + 5 * 4) + 8
    magic, batch, rows, run = struct.unpack_from("<4sII16s", frame)
    assert (magic, batch, rows, run) == (b"WRB1", 7, 2, RUN)
    index, *values = struct.unpack_from("<i5h5f", frame, 28 + 34)
    assert (index, values[:5]) == (15, record(7).classes[1].tolist())
    assert values[5:] == record(7).probabilities[1].tolist()
    assert struct.unpack_from("<Q", frame, len(frame) - 8)[0] == xxhash.xxh3_64_intdigest(frame[:-8])


def test_a_frame_with_warnings_is_laid_out_as_documented(tmp_path: Path) -> None:
    """Its magic differs, and each row ends with one more byte; it reads back beside frames without."""
    plain = record(7)
    warned = replace(plain, warned=np.array([False, True]))
    frame = warned.encode(RUN)
    assert len(frame) == len(plain.encode(RUN)) + 2
    assert frame[:4] == b"WRB2"
    assert [frame[28 + 35 * row + 34] for row in range(2)] == [0, 1]
    assert frame[28:62] + frame[63:97] == plain.encode(RUN)[28:96]
    assert struct.unpack_from("<Q", frame, len(frame) - 8)[0] == xxhash.xxh3_64_intdigest(frame[:-8])
    file_of(tmp_path, record(0), warned, record(8))
    found = RunRecords(tmp_path, KEY).read().by_batch
    assert {batch: None if each.warned is None else each.warned.tolist() for batch, each in found.items()} == {
        0: None, 7: [False, True], 8: None
    }  # fmt: skip
    assert contents(tmp_path) == {batch: content(record(batch)) for batch in (0, 7, 8)}


def test_the_run_is_written_down_by_rank_0(tmp_path: Path) -> None:
    """run.json holds the identity and the given facts; only rank 0 writes it, and no empty record file is made."""
    with RunRecords(tmp_path / "other", KEY, rank=1):
        pass
    assert not (tmp_path / "other" / RUN_NAME).exists()
    with RunRecords(tmp_path / "run", KEY, about={"root": "/data/shards"}):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == [RUN_NAME]
    run = read_run(tmp_path / "run")
    assert (run["identity"], run["digest"], run["root"]) == (KEY.identity, KEY.digest, "/data/shards")


def test_each_execution_is_noted_once_and_by_rank_0(tmp_path: Path) -> None:
    """run.json lists the distinct executions in the order of the starts; its identity and digest stay as they are."""
    one, other = {"device": "cpu"}, {"device": "cuda"}
    for execution in (one, other, one):
        RunRecords(tmp_path, KEY).add_execution(execution)
    RunRecords(tmp_path, KEY, rank=1).add_execution({"device": "xpu"})
    run = read_run(tmp_path)
    assert run["executions"] == RunRecords(tmp_path, KEY, rank=1).executions() == [one, other]
    assert (run["identity"], run["digest"]) == (KEY.identity, KEY.digest)


def test_records_without_a_noted_execution_are_of_an_unknown_one(tmp_path: Path) -> None:
    """Records that an earlier version left get an empty entry before the first noted one."""
    file_of(tmp_path, record(0))
    RunRecords(tmp_path, KEY).add_execution({"device": "cpu"})
    assert read_run(tmp_path)["executions"] == [{}, {"device": "cpu"}]


def test_the_run_key_depends_on_content_alone() -> None:
    """The order of fields does not matter, their values do; the digest is over canonical JSON."""
    turned = RunKey(dict(reversed(KEY.identity.items())))
    assert turned.digest == KEY.digest == RunKey(json.loads(json.dumps(KEY.identity))).digest
    assert len({RunKey({**KEY.identity, "batch_size": size}).digest for size in (2, 3, 2.0, "2")}) == 4
    canonical = rb'{"a":{"name":"\u00e9"},"b":[1,2.5]}'
    assert RunKey({"b": [1, 2.5], "a": {"name": "\u00e9"}}).digest == hashlib.sha256(canonical).hexdigest()


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_cut_file_loses_the_torn_record_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At every length, all records before the cut are there, unchanged, and a torn one is told in the log."""
    records = [record(batch, rows=rows) for batch, rows in ((4, 2), (0, 0), (9, 1), (5, 2))]
    path = file_of(tmp_path, *records)
    data = path.read_bytes()
    ends = np.cumsum([len(each.encode(RUN)) for each in records]).tolist()
    assert ends[-1] == len(data)
    ledger = RunRecords(tmp_path, KEY)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        caplog.clear()
        whole = [each for each, end in zip(records, ends, strict=True) if end <= length]
        assert contents(ledger) == {each.batch: content(each) for each in whole}
        assert len(caplog.records) == (length not in (0, *ends)), length


def test_a_file_that_another_rank_appends_to_is_not_called_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It reads up to where the other one is; later it reads on. Without independent ranks the tear is said."""
    path = file_of(tmp_path, record(0), record(1))
    data = path.read_bytes()
    reader = RunRecords(tmp_path, KEY, rank=1, shared=True)
    for length in range(len(data) // 2, len(data), 7):
        path.write_bytes(data[:length])
        assert contents(reader) == {0: content(record(0))}
    path.write_bytes(data)
    assert contents(reader).keys() == {0, 1}
    assert caplog.messages == []
    path.write_bytes(data[:-1])
    assert contents(tmp_path).keys() == {0}
    assert len(caplog.messages) == 1


def test_no_flipped_bit_gives_another_prediction(tmp_path: Path) -> None:
    """Whichever bit of a file is flipped, what is read is what was written, or less, or a PredictionsError."""
    path = file_of(tmp_path, record(3), record(8))
    data = path.read_bytes()
    ledger = RunRecords(tmp_path, KEY)
    written = contents(ledger)
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            try:
                found = contents(ledger)
            except PredictionsError:
                continue
            assert found.items() < written.items(), (place, bit)


@given(data=st.data())
@settings(max_examples=60)
def test_no_damage_gives_another_prediction(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled or put in at several places: never a record that was not written."""
    folder = tmp_path_factory.mktemp("run")
    path = file_of(folder, record(3), record(8), record(1))
    written = contents(folder)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place, length = data.draw(st.integers(0, len(damaged))), data.draw(st.sampled_from([0, 1, 8, 104]))
        damaged[place : place + length] = data.draw(st.binary(max_size=8)) or damaged[:length] * 2
    path.write_bytes(damaged)
    assert contents(folder).items() <= written.items()


def test_what_follows_damage_is_found_in_other_files(tmp_path: Path) -> None:
    """A damaged file hides no record of another one."""
    path = file_of(tmp_path, record(0), record(1))
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    append(RunRecords(tmp_path, KEY), record(1), record(2))
    assert contents(tmp_path).keys() == {1, 2}


@pytest.mark.parametrize("damage", ["folder", "empty", "other file"])
def test_what_is_no_record_file_is_ignored_or_an_error(tmp_path: Path, damage: str) -> None:
    """A file of other bytes gives nothing; what cannot be read at all is a PredictionsError with its path."""
    file_of(tmp_path, record(0))
    odd = tmp_path / "records" / "odd.bin"
    if damage == "folder":
        odd.mkdir()
        with pytest.raises(PredictionsError, match=r"odd\.bin: "):
            contents(tmp_path)
    else:
        odd.write_bytes(b"" if damage == "empty" else b"not a record" * 100)
        assert contents(tmp_path).keys() == {0}


# --- another run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 64}, ["batch_size was 2, is 64"]),
        ({"model": {"name": "n"}}, ['model.name was "m", is "n"']),
        ({"split": "validation[:10%]", "dataset": "e" * 64}, ["dataset was", "split was", "[:10%]"]),
        ({"dtype": "float16"}, ['dtype was null, is "float16"']),
    ],
)
@pytest.mark.parametrize("rank", [0, 3])
def test_another_run_is_refused_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], words: list[str], rank: int
) -> None:
    """Each differing field is named with both values, the others are not, and nothing on disk is touched."""
    path = file_of(tmp_path, record(0))
    before = path.read_bytes(), (tmp_path / RUN_NAME).read_bytes()
    with pytest.raises(PredictionsError) as caught:
        RunRecords(tmp_path, RunKey({**KEY.identity, **changes}), rank=rank)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: holds the records of another run: ")
    assert [word for word in words if word not in message] == []
    assert message.count(" was ") == len(changes)
    assert (path.read_bytes(), (tmp_path / RUN_NAME).read_bytes()) == before


def test_a_small_difference_in_a_long_field_is_shown(tmp_path: Path) -> None:
    """However long a field is, the two values in the message differ."""
    common = {f"setting_{number:02d}": 0.4980392156862745 for number in range(20)}
    RunRecords(tmp_path, RunKey({"preprocessing": {**common, "std": 0.501}}))
    with pytest.raises(PredictionsError, match=r"0\.501.*0\.502"):
        RunRecords(tmp_path, RunKey({"preprocessing": {**common, "std": 0.502}}))


def test_whole_records_of_another_run_are_refused(tmp_path: Path) -> None:
    """A record file copied from another run is an error; it is neither counted nor ignored."""
    path = file_of(tmp_path, record(0))
    path.write_bytes(path.read_bytes() + record(1).encode(b"another run's 16"))
    with pytest.raises(PredictionsError, match=r"00000-000\.bin: holds records of another run"):
        contents(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "5", "null", "{}", "\ud800", '{"identity": {}}'),
        '{"format": {"name": "wds_real.run", "version": 2}, "identity": {}}',
        '{"format": {"name": "wds_real.run", "version": 1}}',
        '{"format": {"name": "wds_real.run", "version": 1}, "identity": 5}',
        '{"format": {"name": "wds_real.run", "version": 1}, "identity": {}, "identity": {}}',
        '{"format": {"name": "wds_real.run", "version": 1}, "identity": {"x": NaN}}',
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("9" * 5_000, id="digits"),
    ],
)
def test_a_damaged_run_json_is_refused(tmp_path: Path, text: str) -> None:
    """What is not a whole run.json of this version is a PredictionsError that names it, for reading and resuming."""
    (tmp_path / RUN_NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    for use in (lambda: read_run(tmp_path), lambda: RunRecords(tmp_path, KEY)):
        with pytest.raises(PredictionsError, match=r"run\.json: .*Choose another --output"):
            use()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """The message is about --output, not about shards."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PredictionsError, match=r"file: is a file\. Give a folder for --output"):
        RunRecords(tmp_path / "file", KEY)


def test_a_folder_without_run_json_is_refused(tmp_path: Path) -> None:
    """The error says that this is no output folder."""
    with pytest.raises(PredictionsError, match=r"run\.json: no such file: .* is not the --output"):
        read_run(tmp_path)


# --- several starts and processes -------------------------------------------------------------------------------------


def test_each_start_of_each_rank_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Record folders open at once or one after the other, of one rank or several, never write to one file."""
    opened = [RunRecords(tmp_path, KEY, rank=rank) for rank in (0, 0, 1, 0, 1)]
    for number, ledger in enumerate(opened):
        ledger.append(record(number))
    for number, ledger in enumerate(opened):
        ledger.append(record(10 + number))
        ledger.__exit__(None, None, None)
    names = ["00000-000.bin", "00000-001.bin", "00000-002.bin", "00001-000.bin", "00001-001.bin"]
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == names
    assert contents(tmp_path) == {n: content(record(n)) for n in (*range(5), *range(10, 15))}


def test_too_many_starts_are_refused(tmp_path: Path) -> None:
    """The thousandth file of a rank is its last, and no record is written into another."""
    folder = tmp_path / "records"
    folder.mkdir()
    for start in range(1000):
        (folder / f"00002-{start:03d}.bin").touch()
    with pytest.raises(PredictionsError, match="rank 2 was started 1,000 times"):
        append(RunRecords(tmp_path, KEY, rank=2), record(0))
    append(RunRecords(tmp_path, KEY, rank=3), record(0))
    assert contents(tmp_path).keys() == {0}


def test_of_two_records_of_a_batch_the_first_file_counts(tmp_path: Path) -> None:
    """Two ranks that did one batch give it once; the last bits of a probability may differ between machines."""
    first = record(6)
    other = replace(first, probabilities=np.nextafter(first.probabilities, np.float32(2)))
    for rank, each in ((1, other), (0, first)):
        append(RunRecords(tmp_path, KEY, rank=rank), each, each)
    found = RunRecords(tmp_path, KEY).read()
    assert {batch: content(each) for batch, each in found.by_batch.items()} == {6: content(first)}
    assert found.ranks == {0}


@pytest.mark.parametrize("what", ["classes", "samples", "number of samples"])
def test_two_different_records_of_a_batch_are_refused(tmp_path: Path, what: str) -> None:
    """The message names the batch, both files, and the first difference."""
    first = record(6, rows=3)
    other = {
        "classes": replace(first, classes=first.classes + np.array([[0], [0], [1]])),
        "samples": replace(first, index=first.index[::-1].copy()),
        "number of samples": record(6, rows=2),
    }[what]
    append(RunRecords(tmp_path, KEY, rank=3), first)
    append(RunRecords(tmp_path, KEY, rank=12), record(1), other)
    with pytest.raises(PredictionsError) as caught:
        RunRecords(tmp_path, KEY).read()
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: batch 6 was evaluated twice, with different predictions, in ")
    assert "records/00003-000.bin and records/00012-000.bin: " in message
    if what == "classes":
        ours, theirs = (each.classes[2].tolist() for each in (first, other))
        assert f"sample {first.index[2]} has the classes {ours} and {theirs}" in message
    else:
        assert "they hold different samples" in message


WORKER = """
    import sys
    import numpy as np
    from wds_real.scoring.run.description import RunKey
    from wds_real.scoring.run.frame import Record
    from wds_real.scoring.run.records import RunRecords
    assert "torch" not in sys.modules
    with RunRecords(sys.argv[1], RunKey({"what": "concurrent"}), rank=int(sys.argv[2])) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()
        for batch in range(int(sys.argv[3]), int(sys.argv[3]) + 50):
            classes = np.full((20, 5), batch)
            ledger.append(Record(batch, np.arange(20), classes, np.full((20, 5), batch, np.float32)))
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four processes, two under one rank by mistake, write 200 records: all are there, whole. None needs torch."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), tmp_path, str(rank), str(50 * number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number, rank in enumerate((0, 0, 1, 2))
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.communicate("go\n", timeout=60)
        assert worker.returncode == 0
    found = RunRecords(tmp_path, RunKey({"what": "concurrent"})).read().by_batch
    assert sorted(found) == list(range(200))
    assert all((each.classes == batch).all() for batch, each in found.items())
    assert len(list((tmp_path / "records").iterdir())) == 4


# --- a disk that refuses ----------------------------------------------------------------------------------------------


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write files longer than this, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_of_our_errors(tmp_path: Path) -> None:
    """A record that cannot be written is an error that names the file; what was written before is kept."""
    frame, ledger = len(record(0).encode(RUN)), RunRecords(tmp_path, KEY)
    with files_end_at(frame + 50), pytest.raises(WdsRealError, match=r"00000-000\.bin: "):
        append(ledger, record(0), record(1))
    assert contents(tmp_path) == {0: content(record(0))}


def test_a_folder_that_cannot_be_made_is_one_of_our_errors(tmp_path: Path) -> None:
    """A file in the place of the records' folder is an error that names it."""
    (tmp_path / "records").touch()
    with pytest.raises(WdsRealError, match="records"):
        append(RunRecords(tmp_path, KEY), record(0))


def test_the_folder_of_records_is_private(tmp_path: Path) -> None:
    """Others may read the results, and only this user may write: nobody can plant a link."""
    with RunRecords(tmp_path / "run", KEY) as ledger:
        append(ledger, record(0))
    assert (tmp_path / "run").stat().st_mode & 0o022 == 0
    assert (tmp_path / "run" / "records").stat().st_mode & 0o777 == 0o700


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """In place of the file of this process, which gets another name then."""
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "00000-000.bin").symlink_to(tmp_path / "outside")
    with RunRecords(tmp_path, KEY) as ledger:
        append(ledger, record(0))
    assert not (tmp_path / "outside").exists()
    assert (tmp_path / "records" / "00000-001.bin").is_file()


@pytest.mark.parametrize("what", ["run", "records"])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Its owner could plant links."""
    folder = tmp_path / "run" if what == "run" else tmp_path / "run" / "records"
    folder.mkdir(parents=True)
    if os.geteuid() == 0:  # what root owns is trusted
        os.chown(folder, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    if what == "records":
        os.chown(tmp_path / "run", folder.stat().st_uid + 1, -1) if os.getuid() == 0 else pytest.skip("needs root")
    with pytest.raises(PredictionsError, match="belongs to another user"), RunRecords(tmp_path / "run", KEY) as ledger:
        append(ledger, record(0))


@pytest.mark.parametrize("name", ["run.json", "records/00000-000.bin"])
def test_a_named_pipe_is_no_record(tmp_path: Path, name: str) -> None:
    """Reading it does not wait for a writer."""
    with RunRecords(tmp_path, KEY) as ledger:
        append(ledger, record(0))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(PredictionsError, match="is a named pipe, expected a regular file"):
        read_run(tmp_path) if name == "run.json" else RunRecords(tmp_path, KEY).read()
