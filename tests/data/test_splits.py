"""TFDS's split notation and the notation of slices."""

from __future__ import annotations

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
