"""``wds-real`` and ``python -m wds_real``: what a process needs before the first import that takes time."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `python -m` looks for modules in the current folder first: a signal.py or torch.py there would be imported.
    try:
        if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 -- pathlib may be such a file too
            sys.path.append(sys.path.pop(0))
    except OSError:
        pass

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

_WORDS = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}


def main() -> NoReturn:
    """Run the command line and exit."""
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_at_once)
    _open_closed_streams()
    from wds_real.cli.main import main as run  # noqa: PLC0415 -- a signal from here on is handled

    run()


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """End without a traceback: while modules are imported, and after the command, there is nothing to clean up."""
    del frame
    try:
        os.write(2, _WORDS[signal.Signals(number)])
    finally:
        os._exit(128 + number)


def _open_closed_streams() -> None:
    """Lead closed standard streams to /dev/null: otherwise the next file opened would be taken for one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 -- a stream


if __name__ == "__main__":
    main()
