"""The arguments and options of commands that choose images: ``wds-real show`` and ``wds-real ls``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.options import PredictionOptions, refuse_unused_options, storage_option, url_options

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Predictions

__all__ = ["Choice", "choice_options"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images of which data set: the values of the options that `choice_options` adds."""

    root: str
    keys: tuple[str, ...]
    where: str | None
    predictions: tuple[str, ...]
    split: str | None
    storage_options: dict[str, str]

    def open(self) -> tuple[Dataset, list[Predictions], NDArray[np.int64]]:
        """Return the data set, the predictions, and the indices of the chosen images in the data set."""
        from wds_real.data.dataset import open_dataset
        from wds_real.explore.where import choose

        refuse_unused_options(self.storage_options, self.root, *self.predictions)
        dataset = open_dataset(
            self.root, split=self.split, storage_options=url_options(self.root, self.storage_options)
        )
        options = PredictionOptions(None, None, None, None, storage_options=self.storage_options)
        predictions = [options.read(path) for path in self.predictions]
        return dataset, predictions, choose(dataset, self.keys, where=self.where, predictions=predictions)


_OPTIONS = (
    click.argument("root", default="shards"),
    click.argument("keys", nargs=-1),
    click.option("--where", metavar="CONDITION", help="Only images for which this holds, such as 'len(real) > 1'."),
    click.option(
        "--predictions",
        multiple=True,
        metavar="FILE",
        help="Prediction file, or --output folder of eval; repeatable. Conditions call them A, B, ... in this order.",
    ),
    click.option(
        "--split", metavar="SPLIT", help="Part of the data set in TFDS's notation, such as 'validation[:10%]'."
    ),
    storage_option,
)


def choice_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options; the command gets them as `choice`."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        root: str,
        keys: tuple[str, ...],
        where: str | None,
        predictions: tuple[str, ...],
        split: str | None,
        storage_options: dict[str, str],
        **others: Any,
    ) -> None:
        function(*arguments, choice=Choice(root, keys, where, predictions, split, storage_options), **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
