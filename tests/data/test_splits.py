"""TFDS's split notation and the notation of slices."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.data.splits import sliced_split, split_positions
from wds_real.errors import PlanError

bounds = st.none() | st.integers(-30, 30)


@given(bounds, bounds, st.none() | st.sampled_from([-3, -1, 1, 2]))
def test_a_slice_and_its_notation_are_the_same_samples(start: int | None, stop: int | None, step: int | None) -> None:
    """What `sliced_split` writes, `split_positions` reads."""
    item = slice(start, stop, step)
    text = sliced_split("validation", item)
    assert split_positions(text, "validation", 20).tolist() == np.arange(20)[item].tolist()


@pytest.mark.parametrize("text", ["train", "validation[", "validation[:101%]", "validation[1]", "validation[::0]", ""])
def test_other_texts_are_refused(text: str) -> None:
    """Another split, a broken bracket, more than everything, a single place and a step of zero are errors."""
    with pytest.raises(PlanError, match="split is"):
        split_positions(text, "validation", 10)


@pytest.mark.parametrize("part", ["[{}:]", "[:{}]", "[:-{}]", "[:{}%]", "[::{}]"])
def test_a_number_of_thousands_of_digits_is_one_short_line(part: str) -> None:
    """Python refuses to convert such a number; here it is no split, and the message shows its start."""
    with pytest.raises(PlanError, match="split is") as caught:
        split_positions("validation" + part.format("9" * 5_000), "validation", 10)
    assert len(str(caught.value)) < 250


def test_a_bound_beyond_the_end_is_the_end() -> None:
    """As for lists: the largest number that Python's own slices name is a bound like others."""
    assert split_positions(f"validation[:{sys.maxsize}]", "validation", 3).tolist() == [0, 1, 2]
