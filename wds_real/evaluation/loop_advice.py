"""What to change in a training loop whose pass did not see each sample exactly once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wds_real.errors import CoverageError

__all__ = ["loop_advice"]


def loop_advice(error: CoverageError, *, gathered: bool) -> str:
    """Return sentences for the end of the error's message, each with a space before it; "" if there is no advice.

    The usual causes are named: a metric that is not reset between passes, Lightning's sanity check and sampler,
    Accelerate's padding, and predictions that were gathered from all ranks.

    Args:
        error: Of `PredictionTable.result`.
        gathered: Every sample was seen more than once, over several ranks.
    """
    advice = []
    if error.doubled:
        advice.append("Call reset() after compute(), before the next pass.")
    if gathered:
        advice.append("Give update() the predictions of its own process, not those gathered from all.")
    if "lightning" in sys.modules or "pytorch_lightning" in sys.modules:
        if error.missing:
            advice.append(
                "Lightning's sanity check before training runs only a few batches: use "
                "Trainer(num_sanity_val_steps=0), and call reset() in on_validation_epoch_end."
            )
        if error.doubled:
            advice.append("Lightning's sampler repeats images: use Trainer(use_distributed_sampler=False).")
    if "accelerate" in sys.modules and error.doubled:
        advice.append(
            "Accelerate's prepare() repeats images in a DataLoader: use wds_real.Loader, or "
            "DataLoaderConfiguration(even_batches=False)."
        )
    return "".join(f" {sentence}" for sentence in advice)
