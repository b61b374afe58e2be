"""From what a model returns to the scores of the 1,000 classes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from wds_real.errors import ModelError
from wds_real.evaluation.outputs import Outputs
from wds_real.labels.class_maps import background_map

SCORES = torch.arange(2000.0).view(2, 1000)


@dataclass
class Logits:
    """As transformers returns them."""

    logits: torch.Tensor | None
    loss: torch.Tensor | None = None


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(SCORES, id="tensor"),
        pytest.param((SCORES, torch.zeros(2, 5)), id="tuple"),
        pytest.param([SCORES], id="list"),
        pytest.param({"logits": SCORES, "hidden": torch.zeros(2, 5)}, id="dict with logits"),
        pytest.param({"output": SCORES, "time_s": 0.5}, id="dict of one tensor"),
        pytest.param(Logits(SCORES), id="dataclass"),
    ],
)
def test_scores_are_found_in_what_holds_them(returned: object) -> None:
    """The tensor is passed on as it is."""
    assert Outputs().scores(returned) is SCORES


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        pytest.param(None, "returned a NoneType, expected a tensor .* Wrap it", id="None"),
        pytest.param((), "returned a tuple", id="empty tuple"),
        pytest.param(Logits(None), "returned a Logits", id="dataclass without logits"),
        pytest.param({}, "returned a dict of nothing, expected the scores", id="empty dict"),
        pytest.param({"a": SCORES, "b": SCORES}, "returned a dict of a, b, expected the scores", id="dict of two"),
        pytest.param({"logits": None, "a": SCORES, "b": SCORES}, "a dict of logits, a, b", id="logits are None"),
        pytest.param(SCORES.numpy(), "returned a ndarray", id="array"),
        pytest.param(SCORES[0], "scores of shape 1000, expected B x 1000", id="one row"),
        pytest.param(SCORES.sum(), "scores of shape a single number, expected B x 1000", id="scalar"),
        pytest.param(SCORES[:, :999], "has 999 outputs, expected 1000, .* the 1,000-class head", id="999 outputs"),
        pytest.param(torch.zeros(2, 21843), "has 21843 outputs, expected 1000. .*--class-map FILE", id="21843 outputs"),
        pytest.param(torch.zeros(2, 1001), "--background first, or --background last. Else: name", id="1001 outputs"),
    ],
)
def test_what_holds_no_scores_is_refused(returned: object, message: str) -> None:
    """In words, with the option that would help."""
    with pytest.raises(ModelError, match=message):
        Outputs().scores(returned)


def test_classes_instead_of_scores_pass() -> None:
    """They are for the metric, which checks them; with a class map, scores are needed."""
    classes = torch.tensor([3, 999])
    assert Outputs().scores((classes,)) is classes
    with pytest.raises(ModelError, match="scores of shape 2, expected B x 1001"):
        Outputs(background_map("first")).scores(classes)


@pytest.mark.parametrize(("place", "background"), [("first", 0), ("last", 1000)])
def test_a_background_class_is_left_out(place: str, background: int) -> None:
    """Each class has the score of its own output, also in float16."""
    with_background = torch.full((2, 1001), -1.0, dtype=torch.float16)
    with_background[:, [column for column in range(1001) if column != background]] = SCORES.half()
    scores = Outputs(background_map("first" if place == "first" else "last")).scores((with_background,))
    assert torch.equal(scores, SCORES.half())


def test_a_class_map_of_another_model_is_refused() -> None:
    """The message names both numbers of outputs."""
    with pytest.raises(ModelError, match="has 1000 outputs, but the class map is for 1001"):
        Outputs(background_map("last")).scores(SCORES)
