"""The scores of the 1,000 classes, from whatever a model returns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError
from wds_real.labels.class_names import NUM_CLASSES, classes
from wds_real.labels.matching import classes_named, order_of

if TYPE_CHECKING:
    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.labels.class_maps import ClassMap

__all__ = ["Outputs", "check_labels"]

_NO_NAME = re.compile(r"(?:LABEL_|label_|class_)?\d+|")  # transformers' names where a model has none
_MAX_NAME = 40
_BACKGROUND_ADVICE = "If one of them is the background: --background first, or --background last."
_MAP_ADVICE = "Name the class of each output, one wnid or class index a line: --class-map FILE."


class Outputs:
    """The scores of a model's outputs, in the order of the 1,000 classes.

    Args:
        classes: Which output is which class; None for the 1,000 classes in their order.
    """

    def __init__(self, classes: ClassMap | None = None) -> None:
        self._num_outputs = NUM_CLASSES if classes is None else classes.num_outputs
        self._outputs = None if classes is None else torch.from_numpy(classes.outputs)

    def scores(self, returned: object) -> torch.Tensor:
        """Return scores (B, 1000) from a tensor, the `logits` of a dict or dataclass, or the first item of a tuple.

        Without a class map, a tensor of integers holds predicted classes and is returned unchanged.

        Raises:
            ModelError: no scores are found, or they are not (B, number of outputs).
        """
        scores = _scores_in(returned)
        if self._outputs is None and not scores.is_floating_point():
            return scores
        if scores.ndim != 2 or scores.shape[1] != self._num_outputs:
            raise ModelError(_wrong_shape(scores, self._num_outputs))
        if self._outputs is None:
            return scores
        self._outputs = self._outputs.to(scores.device)
        return scores.index_select(1, self._outputs)


def check_labels(model: LoadedModel) -> None:
    """Refuse a model whose names of its 1,000 outputs are not those of the 1,000 classes in their order.

    Generic names such as LABEL_0 are not compared, nor are any names if there is a class map. Another number of outputs
    is refused when the model returns them.

    Raises:
        ModelError: the names are those of the classes in another order, or of other classes.
    """
    names = model.labels
    if names is None or model.classes is not None or len(names) != NUM_CLASSES or all(map(_NO_NAME.fullmatch, names)):
        return
    order = order_of(names)
    if order == "another":
        output, name = next((i, name) for i, name in enumerate(names) if i not in classes_named(name))
        raise ModelError(
            f"{model.spec}: its 1,000 outputs are not in the order of the classes: output {output} is "
            f"{_shown(name)}, but class {output} is {classes()[output].name!r}. {_MAP_ADVICE}"
        )
    if order == "unknown":
        raise ModelError(
            f"{model.spec}: its 1,000 outputs have other names than the classes of ILSVRC2012: {_shown(names[0])}, "
            f"{_shown(names[1])}, ... If they are these classes: {_MAP_ADVICE[0].lower()}{_MAP_ADVICE[1:]}"
        )


def _shown(name: str) -> str:
    return repr(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...")


def _scores_in(returned: object) -> torch.Tensor:
    """Return the tensor of scores: itself, `logits` of a dict or dataclass, or the first of a tuple."""
    found: Any = returned
    if isinstance(returned, Mapping):
        names = [name for name, value in returned.items() if isinstance(value, torch.Tensor)]
        found = returned["logits" if "logits" in names else names[0]] if "logits" in names or len(names) == 1 else None
        if found is None:
            raise ModelError(
                f"the model returned a dict of {', '.join(map(str, returned)) or 'nothing'}, expected the scores "
                "(B, 1000) as 'logits'. Wrap it in a function that returns the logits."
            )
    elif isinstance(getattr(returned, "logits", None), torch.Tensor):
        found = returned.logits  # type: ignore[attr-defined]  # of a dataclass, such as transformers'
    elif isinstance(returned, (tuple, list)) and returned:
        found = returned[0]
    if not isinstance(found, torch.Tensor):
        raise ModelError(
            f"the model returned a {type(returned).__name__}, expected a tensor of scores (B, 1000). Wrap it in a "
            "function that returns the logits."
        )
    return found


def _wrong_shape(scores: torch.Tensor, expected: int) -> str:
    got = " x ".join(map(str, scores.shape)) or "a single number"
    if scores.ndim != 2:
        return f"the model returned scores of shape {got}, expected B x {expected}, one row for each image."
    if expected != NUM_CLASSES:
        return f"the model has {scores.shape[1]} outputs, but the class map is for {expected}."
    if scores.shape[1] < NUM_CLASSES:
        return (
            f"the model has {scores.shape[1]} outputs, expected {NUM_CLASSES}, one for each class of ILSVRC2012. Give "
            "a model with the 1,000-class head."
        )
    advice = _MAP_ADVICE
    if scores.shape[1] == NUM_CLASSES + 1:
        advice = f"{_BACKGROUND_ADVICE} Else: {_MAP_ADVICE[0].lower()}{_MAP_ADVICE[1:]}"
    return f"the model has {scores.shape[1]} outputs, expected {NUM_CLASSES}. {advice}"
