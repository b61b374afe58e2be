"""Commands under limits: full file systems, 64 descriptors, 1 GB of addresses; the peak memory of hostile files."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.forks import ForkServer, fork_server
from support.tally import HANG_S
from support.trials import trial_environment

from wds_real.data.dataset import open_dataset
from wds_real.errors import WdsRealError
from wds_real.packing.verification import verify
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from support.forks import Trial
    from support.tally import Tally

    Tallies = Callable[[str], AbstractContextManager[Tally]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODEL = "wds_real.synthetic:known_answer_model"
PEAK_MIB = 1024  # of a hostile case; importing torch takes a quarter of it
# getrusage would count the memory that this process has when it starts the other.
MEASURED = """
import pathlib, sys
from wds_real.cli.main import main
try:
    main(sys.argv[2:])
finally:
    pathlib.Path(sys.argv[1]).write_bytes(pathlib.Path("/proc/self/status").read_bytes())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with fork_server() as server:
        yield server


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_whole_or_refused(root: Path) -> bool:
    """Return whether a folder is not taken for a set, or is a set without a problem."""
    try:
        open_dataset(root)
    except WdsRealError:
        return True
    return not verify(LocalStore(root), jobs=1).problems


def commands(source: Path, packed: Path, out: Path) -> dict[str, tuple[str, ...]]:
    """Return commands that write to a folder, by name."""
    return {
        "pack": ("pack", str(source), str(out), "--allow-partial", "--samples-per-shard", "10", "-j", "1"),
        "index": ("index", str(packed), "-o", str(out)),
        "eval": ("eval", str(packed), "-m", MODEL, "-b", "10", "-j", "1", "-o", str(out)),
        "pixel cache": ("eval", str(packed), "-m", MODEL, "-b", "10", "-j", "1", "--pixel-cache", str(out)),
    }


def check(name: str, ended: Trial, out: Path, counts: Tally, expected: dict[str, bytes]) -> None:
    """Count how a command ended that had too little room: in one line, or right."""
    counts.counts["attempts"] += 1
    counts.took(ended.seconds)
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.code:
        counts.expect(f"{name}: {ended.code} {ended.err}", ended.code == 1 and len(lines) == 1, "failed with one line")
    elif name in ("pack", "index"):
        counts.expect(name, tree(out) == expected, "ended right")
    else:
        counts.expect(name, "20 seen once, 0 missing, 0 twice" in ended.out, "ended right")
    if not is_whole_or_refused(out):
        counts.silent.append(f"{name}: what is left is taken for whole")


def undisturbed(name: str, server: ForkServer, paths: tuple[Path, Path, Path]) -> dict[str, bytes]:
    """Run a command with all the room it needs; return what it leaves."""
    ended = server.run(*commands(*paths)[name])
    assert ended.code == 0, ended.err
    left = tree(paths[2])
    shutil.rmtree(paths[2])
    return left


@pytest.mark.parametrize("name", ["pack", "index", "eval", "pixel cache"])
def test_files_limited_in_size(
    twenty: Path, packed_twenty: Path, tmp_path: Path, server: ForkServer, tally: Tallies, name: str
) -> None:
    """Every write beyond a limit fails, from 0 bytes up: one line or the right end, and the next run is right."""
    paths = (twenty, packed_twenty, tmp_path / "out")
    expected = undisturbed(name, server, paths)
    most = max(map(len, expected.values()))
    with tally(f"{name} under RLIMIT_FSIZE") as counts:
        for limit in sorted({0, 1, 511, 512, 513, *range(0, most, max(1, most // 10)), most - 1, most}):
            ended = server.run(*commands(*paths)[name], limits={"RLIMIT_FSIZE": limit})
            check(name, ended, paths[2], counts, expected)
            if name in ("pack", "index") and ended.code:
                again = server.run(*commands(*paths)[name])
                counts.expect(f"{name} again: {again.err}", tree(paths[2]) == expected, "right when run again")
            shutil.rmtree(paths[2], ignore_errors=True)


@pytest.mark.parametrize("name", ["pack", "index", "eval", "pixel cache"])
def test_small_file_systems(
    twenty: Path, packed_twenty: Path, tmp_path: Path, server: ForkServer, tally: Tallies, name: str
) -> None:
    """File systems of 4 KiB up to enough: one line or the right end; with more room the same command ends right."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    paths = (twenty, packed_twenty, mounted / "out")
    expected = undisturbed(name, server, paths)
    most = 2 * sum(map(len, expected.values())) + (64 << 10)

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(mounted)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mount("size=4k"):
        pytest.skip("needs the right to mount a file system (root)")
    try:
        with tally(f"{name} on small file systems") as counts:
            for size in range(4096, most, max(4096, most // 12 // 4096 * 4096)):
                assert mount("remount", f"size={size}")
                check(name, server.run(*commands(*paths)[name]), paths[2], counts, expected)
                assert mount("remount", f"size={4 * most}")
                again = server.run(*commands(*paths)[name])
                done = again.code == 0 or "finished set" in again.err
                right = tree(paths[2]) == expected if name in ("pack", "index") else again.code == 0
                counts.expect(f"{name} again: {again.err}", done and right, "right with more room")
                shutil.rmtree(paths[2], ignore_errors=True)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@pytest.fixture(scope="module")
def packed_twenty(twenty: Path, server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed_twenty") / "set"
    ended = server.run("pack", twenty, root, "--allow-partial", "--samples-per-shard", "10")
    assert ended.code == 0, ended.err
    return root


def test_64_descriptors(made_tar: Path, tmp_path: Path, server: ForkServer, tally: Tallies) -> None:
    """With 64 descriptors and 120 shards every command ends as without a limit."""
    root, limits = tmp_path / "set", {"RLIMIT_NOFILE": 64}
    with tally("64 descriptors, 120 shards") as counts:
        for command, shown in (
            (("pack", str(made_tar), str(root), "--allow-partial", "--samples-per-shard", "1"), "120 images"),
            (("verify", str(root), "--level", "decode"), "OK: 120 shards"),
            (("info", str(root)), "num_shards"),
            (("index", str(root), "-o", str(tmp_path / "index")), "120"),
            (("eval", str(root), "-m", MODEL, "-b", "30", "-o", str(tmp_path / "run")), "120 seen once, 0 missing"),
            (("merge", str(tmp_path / "run"), "--root", str(root)), "120 seen once, 0 missing"),
        ):
            ended = server.run(*command, limits=limits)
            counts.counts["attempts"] += 1
            counts.took(ended.seconds)
            counts.expect(f"{command[0]}: {ended.err}", ended.code == 0 and shown in ended.out, "ended right")


def test_1_gb_of_addresses(made_tar: Path, tmp_path: Path, tally: Tallies) -> None:
    """With 1 GB of addresses commands end right; eval may say in one line that torch does not fit."""
    root = tmp_path / "set"
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9));"
        "from wds_real.cli.main import main; main(sys.argv[1:])"
    )
    with tally("1 GB of addresses") as counts:
        for command in (
            ("pack", str(made_tar), str(root), "--allow-partial", "-j", "2"),
            ("verify", str(root), "--level", "decode"),
            ("info", str(root)),
            ("index", str(root), "-o", str(tmp_path / "index")),
            ("eval", str(root), "-m", MODEL, "-b", "30", "-j", "2"),
        ):
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", limited, *command],
                capture_output=True, text=True, check=False, env=trial_environment(),
            )  # fmt: skip
            counts.counts["attempts"] += 1
            counts.took(time.monotonic() - started)
            lines = [line for line in done.stderr.splitlines() if "error: " in line]
            one_line = done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr
            right = done.returncode == 0 and is_whole_or_refused(root)
            what = f"{command[0]}: {done.returncode} {done.stderr[-500:]}"
            fits = right or (command[0] == "eval" and one_line)  # it is torch that may not fit
            counts.expect(what, fits, "ended right or in one line")


def hostile_files(folder: Path, root: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Write files that promise more than they hold; yield what each is, and the command that reads it."""

    def write(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return str(folder / name)

    def manifest(name: str, text: str) -> str:
        place = Path(shutil.copytree(root, folder / name))
        (place / "manifest.json").write_text(text)
        return str(place)

    body = json.loads((root / "manifest.json").read_text())
    yield "manifest nested 1,000,000 deep", ("info", manifest("nested", "[" * 1_000_000))
    yield "manifest with a number of 1,000,000 digits", ("info", manifest("digits", "1" * 1_000_000))
    shard = body["shards"][0]
    many = json.dumps({**body, "shards": [{**shard, "name": f"{number}.tar"} for number in range(50_000)]})
    yield "manifest of 50,000 shards", ("verify", manifest("many", many))
    header = bytearray((root / shard["name"]).read_bytes()[:512])
    header[124:136] = b"\x80" + (2**60).to_bytes(11, "big")
    yield "tar member of 2^60 bytes", ("pack", write("huge.tar", bytes(header)), str(folder / "new"), "--allow-partial")
    yield (
        "tar of 64 MiB of zeros",
        ("pack", write("zeros.tar", bytes(64 << 20)), str(folder / "new"), "--allow-partial"),
    )
    yield "10,000,000 shards in braces", ("index", str(folder / "x-{0..10000000}.tar"), "-o", str(folder / "new"))
    wide = ",".join(f"c{number}" for number in range(200_000))
    yield "200,000 columns", ("score", write("wide.csv", f"{wide}\n{wide}\n".encode()))
    yield "one line of 64 MiB", ("score", write("line.csv", b"x" * (64 << 20)))
    yield "JSON nested 1,000,000 deep", ("score", write("deep.json", b"[" * 1_000_000))
    npz = io.BytesIO()
    with (
        zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("pred.npy", "w", force_zip64=True) as member,
    ):
        zeros = np.zeros(0, dtype=np.float64)
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": zeros.dtype.str, "fortran_order": False, "shape": (1 << 28,)}
        )
        member.write(head.getvalue())
        for _ in range(2048):
            member.write(bytes(1 << 20))
    yield "NPZ that inflates to 2 GiB", ("score", write("bomb.npz", npz.getvalue()))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    yield "NPY that says 8 TiB", ("score", write("says.npy", head.getvalue()))
    picture = _large_jpeg(30_000)
    source = folder / "large"
    source.mkdir()
    (source / "ILSVRC2012_val_00000001.JPEG").write_bytes(picture)
    yield "JPEG that says 30,000 x 30,000 pixels, packed", ("pack", str(source), str(folder / "big"), "--allow-partial")
    yield "the same, decoded", ("verify", str(folder / "big"), "--level", "decode")
    yield "the same, evaluated", ("eval", str(folder / "big"), "-m", MODEL, "-b", "1", "-j", "1")


def _large_jpeg(side: int) -> bytes:
    """Return a small JPEG whose header says that it has `side` x `side` pixels."""
    from wds_real.synthetic import encode_image

    data = bytearray(encode_image(1))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = side.to_bytes(2, "big") * 2
    return bytes(data)


def test_peak_memory_of_hostile_files(
    packed: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each file that promises more than it holds is refused, or read, in less than 1 GiB and a minute."""
    rows = ["hostile file: exit code, seconds, peak MiB (an idle command with torch has about 300)"]
    wrong = []
    for what, command in hostile_files(tmp_path, packed):
        started, peak = time.monotonic(), tmp_path / "peak.txt"
        peak.write_text("VmHWM: 999999999 kB")  # of a process that is killed before it writes its own
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(peak), *command],
            capture_output=True, check=False, env=trial_environment(),
        )  # fmt: skip
        seconds, code = time.monotonic() - started, done.returncode
        mib = int(peak.read_text().partition("VmHWM:")[2].split()[0]) / 1024
        rows.append(f"  {what}: {code}, {seconds:.1f} s, {mib:,.0f} MiB")
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if mib > PEAK_MIB or seconds > HANG_S or "Traceback" in said or code not in (0, 1, 2, 3, 4):
            wrong.append(f"{rows[-1]}: {said[-200:]}")
    record_property("counts", "\n".join(rows))
    assert not wrong, "\n".join(wrong)
