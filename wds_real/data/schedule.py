"""Which batches a loader yields, and which one is next; nothing is read here.

`Schedule` is a pure function of its fields; `LoaderState` is the part of a loader that `state_dict` saves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wds_real.data import plan
from wds_real.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.data.launchers import World

__all__ = ["LoaderState", "Schedule", "Step", "select_batches"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a pass.

    Attributes:
        place: Number of the step in this rank's pass.
        batch: Number of the batch in the plan; -1 if all of it is padding.
        positions: int64 (up to batch_size,), the samples, as positions in the data set.
    """

    place: int
    batch: int
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The batches of one rank.

    Attributes:
        dataset: The data set or view whose samples are batched.
        world: This process's rank among the processes.
        batch_size: Samples in each batch.
        batches: Numbers of the batches of the plan that all ranks go through together.
        shuffle: Whether samples are permuted.
        seed: Seed of the permutation.
        pad: Whether every rank takes the same number of steps.
    """

    dataset: Dataset
    world: World
    batch_size: int
    batches: tuple[int, ...]
    shuffle: bool
    seed: int
    pad: bool

    def __len__(self) -> int:
        if self.pad:
            return plan.num_steps(len(self.batches), world_size=self.world.world_size)
        return len(self.share())

    @property
    def num_samples(self) -> int:
        """Samples in this rank's batches."""
        positions = self.dataset.positions
        return sum(len(plan.batch(positions, number, batch_size=self.batch_size)) for number in self.share())

    def steps(self, places: range, *, epoch: int) -> list[Step]:
        """Return the steps at these places of the pass."""
        order, share = self.dataset.positions, self.share()
        if self.shuffle:
            order = order[plan.shuffled_order(self.dataset.keys, seed=self.seed, epoch=epoch)]
        return [
            Step(place, share[place], plan.batch(order, share[place], batch_size=self.batch_size))
            if place < len(share)
            else Step(place, -1, order[:0])
            for place in places
        ]

    def identity(self) -> dict[str, Any]:
        """Return the settings that another run must share for a place of this one to be valid there."""
        return {
            "dataset": self.dataset.digest,
            "split": self.dataset.split,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "rank": self.world.rank,
            "world_size": self.world.world_size,
            "batches": hashlib.sha256(str(self.batches).encode()).hexdigest()[:16],
        }

    def share(self) -> tuple[int, ...]:
        """Return the numbers of this rank's batches."""
        share = plan.share(len(self.batches), rank=self.world.rank, world_size=self.world.world_size)
        return self.batches[share.start : share.stop]


def select_batches(num_samples: int, batch_size: int, batches: Sequence[int] | None) -> tuple[int, ...]:
    """Return the numbers of the batches to go through: those given, or all.

    >>> select_batches(10, 4, None)
    (0, 1, 2)

    Raises:
        PlanError: batch_size is less than 1, or there is no batch of a number.
    """
    total = plan.num_batches(num_samples, batch_size)
    selected = tuple(range(total) if batches is None else batches)
    outside = [number for number in selected if not 0 <= number < total]
    if outside:
        raise PlanError(f"batches has {outside[0]}, expected numbers of batches in [0, {total}).")
    return selected


class LoaderState:
    """The state of a loader: its epoch, and the place after the last batch that it yielded."""

    def __init__(self, schedule: Schedule) -> None:
        self.epoch = 0
        self._schedule = schedule
        self._place = self._resume_at = 0

    def begin_pass(self) -> range:
        """Return the places of the next pass: all of them, or those after the place that was loaded."""
        first, self._resume_at = self._resume_at, 0
        self._place = first
        return range(first, len(self._schedule))

    def set_yielded(self, step: Step) -> None:
        """Note that the batch of a step is yielded."""
        self._place = step.place + 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next pass; a new epoch begins at its first batch."""
        if epoch != self.epoch:
            self._place = self._resume_at = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return place, epoch and the identity of the schedule."""
        return {"step": self._place, "epoch": self.epoch, **self._schedule.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin where `state` was saved.

        Raises:
            PlanError: `state` is of another schedule.
        """
        identity = self._schedule.identity()
        differing = [name for name, value in identity.items() if state.get(name) != value]
        if differing:
            raise PlanError(
                "the state is of another run: "
                + ", ".join(f"{name} was {state.get(name)}, is {identity[name]}" for name in differing)
                + ". Build the Loader with the values of the state."
            )
        self._place = self._resume_at = int(state["step"])
        self.epoch = int(state["epoch"])
