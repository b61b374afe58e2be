"""A process that loads all images each time it is asked to: python installed.py ROOT BATCH_SIZE THREADS.

It uses the wds_real of PYTHONPATH. The first line it prints says where that is and how it decodes; then it answers
each line of its input with images, seconds and seconds of CPU time. Each line is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import wds_real
from wds_real.image.backends import describe


def main(root: str, batch_size: int, threads: int) -> None:
    """Say what is measured, and measure whenever a line comes."""
    loader = wds_real.Loader(wds_real.open_dataset(root), batch_size=batch_size, threads=threads, pad=False)
    sum(map(len, loader))  # not timed: imports modules and fills the page cache
    print(json.dumps([str(Path(wds_real.__file__).parent), describe()["decode"]]), flush=True)
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        samples = sum(map(len, loader))
        print(json.dumps([samples, time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
