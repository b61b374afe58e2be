"""The options of an evaluation: as an object, or as keyword arguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from wds_real.evaluation.options import EvalFields, EvalOptions, choose_options


def test_keywords_are_the_fields() -> None:
    """Each field can be given as a keyword, and no other name is one."""
    assert list(EvalFields.__annotations__) == [field.name for field in fields(EvalOptions)]
    assert choose_options(None) == EvalOptions()
    assert choose_options(None, batch_size=64, amp=True) == EvalOptions(batch_size=64, amp=True)
    given = EvalOptions(batch_size=3)
    assert choose_options(given) is given


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (EvalOptions(), {"batch_size": 3, "amp": True}, "batch_size, amp given beside options="),
        (None, {"batchsize": 3}, "no argument 'batchsize'. Perhaps batch_size"),
        (None, {"xyz": 3}, "no argument 'xyz'. Expected one of batch_size, threads"),
    ],
)
def test_what_is_ambiguous_or_unknown_is_refused(options: Any, given: dict[str, Any], words: str) -> None:
    """The message says what to give instead."""
    with pytest.raises(TypeError, match=words):
        choose_options(options, **given)
