"""A process that loads all images once for each line of its input: python installed.py ROOT BATCH_SIZE THREADS.

It uses the wds_real of PYTHONPATH. The first line of output has the folder of the package and how it decodes; each
other line answers a line of input with images, seconds and CPU seconds. The lines are JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import wds_real
from wds_real.image.backends import describe


def main(root: str, batch_size: int, threads: int) -> None:
    """Print what is measured, then measure once for each line of input."""
    loader = wds_real.Loader(wds_real.open_dataset(root), batch_size=batch_size, threads=threads, pad=False)
    sum(map(len, loader))  # not timed: imports modules and fills the page cache
    print(json.dumps([str(Path(wds_real.__file__).parent), describe()["decode"]]), flush=True)
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        samples = sum(map(len, loader))
        print(json.dumps([samples, time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
