"""Known-answer models that take their time and note each batch, communicate, or die: for tests with real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed

from wds_real.synthetic import KnownAnswerModel, known_answer_model

if TYPE_CHECKING:
    from wds_real.image.transform import EvalTransform


class SlowModel(KnownAnswerModel):
    """Appends a line to the file named by SLOW_MODEL_LOG for each batch that is not all padding, then answers.

    Where SLOW_MODEL_HOLDS_AT is a number, it answers the batch of that number only once there is a file beside the log
    with the ending ``.go``, or after some minutes: a test that sends a signal finds the process at work.
    """

    num_batches = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the known scores, SLOW_MODEL_SECONDS later."""
        if bool((image > -1).any()):
            path = Path(os.environ["SLOW_MODEL_LOG"])
            with path.open("a") as log:
                log.write(f"{os.environ.get('RANK', '0')} {os.getpid()}\n")
            time.sleep(float(os.environ.get("SLOW_MODEL_SECONDS", "0.01")))
            self.num_batches += 1
            if self.num_batches == int(os.environ.get("SLOW_MODEL_HOLDS_AT", "0")):
                _wait_for(path.with_suffix(".go"))
        return super().forward(image)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


class CommunicatingModel(KnownAnswerModel):
    """Adds a number up over all ranks in each forward, as sharded models do: it hangs unless all ranks keep step."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the known scores."""
        total = torch.ones(1)
        if distributed.is_initialized():
            distributed.all_reduce(total)
            assert int(total) == distributed.get_world_size()
        return super().forward(image)


class MortalModel(KnownAnswerModel):
    """Kills its process at the second batch, unless the file named by MORTAL_MODEL_DIED is there: one process dies."""

    num_batches = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the known scores."""
        self.num_batches += 1
        if self.num_batches > 1:
            try:
                Path(os.environ["MORTAL_MODEL_DIED"]).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(image)


def mortal_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and its transform."""
    return MortalModel(), known_answer_model()[1]


def communicating_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and its transform."""
    return CommunicatingModel(), known_answer_model()[1]


def slow_model() -> tuple[torch.nn.Module, EvalTransform]:
    """Return the model and its transform: ``-m slow_model:slow_model`` with this folder in PYTHONPATH."""
    return SlowModel(), known_answer_model()[1]
