"""Models made by a function that the user wrote."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wds_real.errors import ModelError, ModelRunError, WdsRealError
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.base import LoadedModel
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from wds_real.evaluation.models.base import BuildOptions

__all__ = ["load_from_factory"]

_FORM = "Expected package.module:factory, a module that Python can import from here and a function in it."


def load_from_factory(spec: str, module_name: str, factory_name: str, build: BuildOptions) -> LoadedModel:
    """Call a function that returns a module, or (module, EvalTransform), with the arguments of `build`.

    Raises:
        ModelError: the module cannot be imported, or the function is missing, takes other arguments, raises something
            or returns something else.
        ModelRunError: memory ran out in the function.
    """
    module = _imported(spec, module_name)
    factory = getattr(module, factory_name, None)
    if factory is None:
        file = getattr(module, "__file__", None)
        raise ModelError(f"{spec}: {module_name} ({file}) has no {factory_name!r}. {_FORM}")
    if not callable(factory):
        raise ModelError(f"{spec}: {factory_name} is a {type(factory).__name__}, expected a function of no arguments.")
    arguments = build.all_arguments()
    refused = _refused_arguments(factory, arguments)
    if refused:
        raise ModelError(f"{spec}: {factory_name} {refused}")
    made = _called(spec, factory, arguments)
    pair = made if isinstance(made, tuple) else (made, EvalTransform())
    model, transform = pair if len(pair) == 2 else (None, None)
    if not callable(model) or not isinstance(transform, EvalTransform):
        raise ModelError(f"{spec}: the factory returned {_kind(made)}, expected a module, or (module, EvalTransform).")
    return LoadedModel(spec, model, transform)


def _imported(spec: str, name: str) -> ModuleType:
    """Import the user's module; a missing module and an error inside the module have different messages."""
    if not name or not all(part.isidentifier() for part in name.split(".")):
        advice = f" {_FORM}"
        if name.endswith(".py"):
            dotted = name.removesuffix(".py").strip("/").replace("/", ".")
            advice = f" Give the module's name without .py: {dotted}:{spec.partition(':')[2]}."
        raise ModelError(f"{spec}: {name!r} is not the name of a module.{advice}")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ModelError(f"{spec}: importing {name} raised {describe(error)}.") from error
        raise ModelError(f"{spec}: there is no module {error.name!r} here or in PYTHONPATH. {_FORM}") from error
    except WdsRealError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise ModelRunError(f"{spec}: out of memory while {name} was imported.") from error
        raise ModelError(f"{spec}: importing {name} raised {describe(error)}.") from error
    _check_not_hidden(spec, name.partition(".")[0])
    return module


def _check_not_hidden(spec: str, package: str) -> None:
    """Refuse an installed package where the current folder has a module of the same name: one of them is meant."""
    file = getattr(sys.modules.get(package), "__file__", None)
    for here in (Path(f"{package}.py"), Path(package, "__init__.py")):
        if here.exists() and package != "wds_real" and not (file and here.samefile(file)):
            raise ModelError(
                f"{spec}: {here} in the current folder is hidden by a module of the same name ({file}), which Python "
                "finds first. Rename the one here."
            )


def _called(spec: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- whatever the user's function returns
    try:
        return factory(**arguments)
    except WdsRealError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise ModelRunError(f"{spec}: out of memory while the model was made.") from error
        raise ModelError(f"{spec}: the factory raised {describe(error)}.") from error


def _refused_arguments(factory: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    """Return why a factory cannot be called with these arguments; "" if it can."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some built-in functions have no signature
        return ""
    try:
        signature.bind(**arguments)
    except TypeError as error:
        if not arguments:
            return "needs arguments, expected a function of no arguments. Its arguments are given by --model-kwargs."
        return f"takes other arguments ({error}). It got {', '.join(arguments)}, from --model-kwargs and --num-classes."
    return ""


def _kind(made: object) -> str:
    """Return what a factory returned, in few words."""
    if made is None:
        return "None"
    if isinstance(made, tuple):
        return f"a tuple ({', '.join(type(part).__name__ for part in made)})"
    return f"a {type(made).__name__}"
