"""Stands in for Lightning where that is not installed: the hooks of one process, in Lightning's order.

`Trainer.fit` runs the sanity check (`num_sanity_val_steps` validation batches, then `on_validation_epoch_end`), and
then, for each epoch, the training batches and the whole validation. Nothing else of Lightning is here.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LightningModule", "Trainer"]


class LightningModule(torch.nn.Module):
    """A module whose hooks `Trainer` calls."""


class Trainer:
    """Calls the hooks of a module; the settings that it does not know are Lightning's, and ignored."""

    def __init__(self, *, max_epochs: int = 1, num_sanity_val_steps: int = 2, **_ignored: object) -> None:
        self.max_epochs = max_epochs
        self.num_sanity_val_steps = num_sanity_val_steps

    def fit(self, module: Any, batches: Iterable[Any]) -> None:
        """Train for `max_epochs`, validating before, as a check, and after each epoch."""
        optimizer = module.configure_optimizers()
        if self.num_sanity_val_steps:
            _validate(module, self.num_sanity_val_steps)
        for _ in range(self.max_epochs):
            for number, batch in enumerate(batches):
                optimizer.zero_grad()
                module.training_step(batch, number).backward()
                optimizer.step()
            _validate(module, None)


def _validate(module: Any, num_steps: int | None) -> None:
    module.eval()
    with torch.no_grad():
        for number, batch in enumerate(itertools.islice(module.val_dataloader(), num_steps)):
            module.validation_step(batch.to("cpu"), number)
        module.on_validation_epoch_end()
    module.train()
