"""Models made by a function that the user wrote."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.models.base import LoadedModel
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_from_factory"]


def load_from_factory(spec: str, module_name: str, factory_name: str) -> LoadedModel:
    """Call a function of no arguments that returns a module, or (module, EvalTransform).

    Raises:
        ModelError: the function cannot be imported, needs arguments, or returns something else.
    """
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(
            f"{spec}: {error}. Expected package.module:factory, importable from here (is its folder in PYTHONPATH?)."
        ) from error
    if not callable(factory):
        raise ModelError(f"{spec}: {factory_name} is a {type(factory).__name__}, expected a function of no arguments.")
    if not _takes_no_arguments(factory):
        raise ModelError(f"{spec}: {factory_name} needs arguments, expected a function of no arguments.")
    made = factory()
    pair = made if isinstance(made, tuple) else (made, EvalTransform())
    module, transform = pair if len(pair) == 2 else (None, None)
    if not callable(module) or not isinstance(transform, EvalTransform):
        raise ModelError(f"{spec}: the factory returned {made!r}, expected a module, or (module, EvalTransform).")
    return LoadedModel(spec, module, transform)


def _takes_no_arguments(factory: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some built-in functions have no signature
        return True
    return all(
        parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in signature.parameters.values()
    )
