"""The C extensions under the address and undefined-behaviour sanitizers, on damaged JPEGs and random arguments.

The extensions are built anew with the sanitizers, into a folder of the test. A child process, in which the sanitizer's
library is loaded first, runs them; the first error of the sanitizer ends it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.images import jpeg, textured

pytestmark = pytest.mark.slow
IMAGE = Path(__file__).resolve().parent.parent.parent / "wds_real" / "image"
FLAGS = ["-O1", "-g", "-std=c11", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
NUM_JPEGS, NUM_RESAMPLES = 20_000, 20_000

FILES = {
    "420": jpeg(textured(97, 61), quality=80),
    "444": jpeg(textured(64, 48), quality=95, subsampling=0),
    "422": jpeg(textured(50, 33), subsampling=1),
    "gray": jpeg(textured(40, 30, "L")),
    "restart": jpeg(textured(64, 64), restart_marker_blocks=2),
    "progressive": jpeg(textured(48, 48), progressive=True),
    "cmyk": jpeg(textured(32, 32, "CMYK")),
    "optimized": jpeg(textured(64, 40), optimize=True),
}

LOAD = """
import importlib.util, random, sys
import numpy as np
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
draws, count = random.Random(0), int(sys.argv[3])
"""

JPEGS = (
    LOAD
    + """
from pathlib import Path
files = [path.read_bytes() for path in sorted(Path(sys.argv[4]).iterdir())]
decoded = warned = 0
for _ in range(count):
    data = bytearray(draws.choice(files))
    reach = draws.choice((200, 700, len(data)))
    for _ in range(draws.randrange(4)):
        data[draws.randrange(min(reach, len(data)))] = draws.choice((0, 255, draws.randrange(256)))
    kind = draws.randrange(5)
    if kind == 0:
        del data[draws.randrange(len(data)) :]
    elif kind == 1:
        at = draws.randrange(len(data))
        del data[at : at + draws.randrange(64)]
    elif kind == 2:
        at = draws.randrange(len(data))
        data[at:at] = draws.randbytes(draws.randrange(64))
    data = bytes(data)
    warned += module.warning(data, 1 << 20) is not None
    frame = data.find(b"\\xff\\xc0")  # the size that the header says, as the package gives it
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (5, 7))
    if frame < 0 or not 0 < height <= 512 or not 0 < width <= 512:
        width, height = draws.choice(((97, 61), (64, 48), (64, 64), (40, 30)))
    left, top = draws.randrange(width), draws.randrange(height)
    rows, columns = draws.randint(1, height - top), draws.randint(1, width - left)
    pixels = np.empty((rows, columns + module.SLACK, 3), np.uint8)
    decoded += module.decode_crop(data, pixels, width, height, left, top, draws.random() < 0.5) >= 0
print(f"{count:,} damaged JPEGs: {decoded:,} crops decoded, {warned:,} files with warnings or errors")
"""
)

RESAMPLES = (
    LOAD
    + """
done = refused = 0
side = lambda: draws.choice((1, 2, 3, draws.randint(1, 40), draws.randint(1, 300)))
for _ in range(count):
    full, resized, filter = (side(), side()), (side(), side()), draws.randint(0, 4)
    start = tuple(draws.randrange(length) for length in resized)
    size = tuple(draws.randint(1, length - first) for length, first in zip(resized, start))
    try:
        box = module.needed_box(full, resized, start, size, filter)
        assert 0 <= box[0] < box[2] <= full[0] and 0 <= box[1] < box[3] <= full[1]
        if draws.random() < 0.3:  # wrong on purpose
            wrong = (0, -1, 1, 1 << 24, -(1 << 31), (1 << 31) - 1)
            moved = [value + draws.choice(wrong) for value in (*full, *resized)]
            full, resized = tuple(moved[:2]), tuple(moved[2:])
            start = tuple(value + draws.choice((0, -1, 1, (1 << 31) - 1 - value)) for value in start)
        pixels = np.empty((box[3] - box[1], box[2] - box[0], 3), np.uint8)
        out = np.empty((size[1], size[0], 3), np.uint8)
        module.resize_crop(pixels, out, full, box[:2], resized, start, filter, draws.random() < 0.5)
        done += 1
    except (ValueError, OverflowError):
        refused += 1
print(f"{count:,} random resizes: {done:,} done, {refused:,} refused")
"""
)


def built(name: str, folder: Path, *libraries: str) -> Path:
    """Build an extension with the sanitizers; skip the test where the compiler or a header is missing."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    out = folder / f"{name}.so"
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [compiler, *FLAGS, include, str(IMAGE / f"{name}.c"), "-o", str(out), *libraries, "-lm"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.skip(f"{name}.c cannot be built with the sanitizers: {ended.stderr.strip().splitlines()[-1]}")
    return out


def run(code: str, *arguments: object) -> str:
    """Run code in a child in which the sanitizer's library is loaded first."""
    asked = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": asked.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",  # Python keeps memory until it ends
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


@pytest.mark.timeout(1200)
def test_damaged_jpegs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """20,000 damaged JPEGs: no access outside of memory and no undefined behaviour."""
    (tmp_path / "files").mkdir()
    for name, data in FILES.items():
        (tmp_path / "files" / name).write_bytes(data)
    printed = run(JPEGS, "_jpeg", built("_jpeg", tmp_path, "-ljpeg"), NUM_JPEGS, tmp_path / "files")
    assert printed.startswith(f"{NUM_JPEGS:,} damaged JPEGs")
    with capsys.disabled():
        print(f"\n{printed}", end="")  # noqa: T201 -- the count is what the campaign is for


@pytest.mark.timeout(1200)
def test_resize_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """20,000 resizes of random sizes, a third of them impossible: none reads or writes outside of the arrays."""
    printed = run(RESAMPLES, "_resample", built("_resample", tmp_path), NUM_RESAMPLES)
    assert printed.startswith(f"{NUM_RESAMPLES:,} random resizes")
    with capsys.disabled():
        print(f"\n{printed}", end="")  # noqa: T201 -- as above


def test_the_sanitizer_finds_a_fault(tmp_path: Path) -> None:
    """A C function that reads behind its array is found: the campaign could fail."""
    source = tmp_path / "fault.c"
    source.write_text("#include <stdlib.h>\nint fault(int n) { volatile char *p = malloc(n); return p[n]; }\n", "ascii")
    out = tmp_path / "fault.so"
    ended = subprocess.run(["gcc", *FLAGS, str(source), "-o", str(out)], capture_output=True, check=False)
    if ended.returncode:
        pytest.skip("the compiler lacks the sanitizers")
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run(f"import ctypes; ctypes.CDLL({str(out)!r}).fault(10)")
