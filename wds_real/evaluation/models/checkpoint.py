"""Weights of a checkpoint: which state dict of the file, which prefixes, and a model that they fit exactly."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError, ModelRunError, first_few
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.weights_file import read_weights_file
from wds_real.labels.class_names import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from wds_real.evaluation.models.base import LoadedModel
    from wds_real.evaluation.models.weights_file import WeightsFile

__all__ = ["with_checkpoint"]

_LOG = logging.getLogger(__name__)

_PLAIN = ("state_dict", "model", "model_state_dict")
_EMA = ("state_dict_ema", "model_ema")
_PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel: how many models were averaged
_TOP = "the top level"
_MAX_CLASSIFIERS = 8  # tensors that differ with the number of classes: weight and bias of a few heads


@dataclass(frozen=True, slots=True)
class _State:
    """A state dict, and where it was found.

    Attributes:
        place: Its name in the file.
        tensors: The state dict, by name.
        removed: Prefixes that were removed from names, and from how many.
        left_out: Names that belong to no layer.
    """

    place: str
    tensors: Mapping[str, Any]
    removed: Mapping[str, int]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"weights from {self.place}"]
        parts += [f"prefix {prefix} removed from {count} names" for prefix, count in self.removed.items()]
        parts += [f"{name} left out" for name in self.left_out]
        return ", ".join(parts)


def with_checkpoint(loaded: LoadedModel, path: str | Path, *, use_ema: bool = False) -> LoadedModel:
    """Load a checkpoint into the model, strictly, and say in `LoadedModel.facts` and in the log what was taken from it.

    Args:
        loaded: A model of the checkpoint's architecture; its weights are replaced.
        path: A file of `torch.save` or safetensors.
        use_ema: Take the averaged weights.

    Raises:
        ModelError: the file cannot be read, or holds no weights, or other ones than asked for; or they do not fit.
        ModelRunError: memory ran out.
    """
    module = loaded.module
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{loaded.spec}: a {type(module).__name__}, expected a torch.nn.Module to load {path} into.")
    file = read_weights_file(Path(path))
    state = _without_prefixes(file, _chosen(file, use_ema=use_ema), module.state_dict())
    _fill(loaded, module, file, state)
    _LOG.info("%s: %s", path, state)
    facts: dict[str, Any] = {"file": file.path.name, "sha256": file.sha256, "state_dict": state.place}
    if state.removed:
        facts["removed_prefixes"] = list(state.removed)
    if state.left_out:
        facts["left_out"] = list(state.left_out)
    return replace(loaded, facts={**loaded.facts, "checkpoint": facts})


def _chosen(file: WeightsFile, *, use_ema: bool) -> _State:
    """Return the one state dict that is asked for; several of them, or only others, are an error."""
    content, path = file.content, file.path
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}, expected a state dict.")
    places = {name: content[name] for name in (*_PLAIN, *_EMA) if _is_state_dict(content.get(name))}
    plain = [name for name in places if name in _PLAIN] or ([_TOP] if not places and _is_state_dict(content) else [])
    averaged = [name for name in places if name in _EMA]
    wanted = averaged if use_ema else plain
    if len(wanted) > 1:
        raise ModelError(f"{path}: holds weights in {' and in '.join(wanted)}. Save the ones you mean alone.")
    if use_ema and plain and not wanted:
        raise ModelError(f"{path}: holds no averaged weights ({' or '.join(_EMA)}), only {plain[0]}. Omit --use-ema.")
    if averaged and not wanted:
        raise ModelError(
            f"{path}: holds only averaged weights ({averaged[0]}). Add --use-ema (use_ema=True in Python)."
        )
    if not wanted:
        likely = [str(name) for name, value in content.items() if _is_state_dict(value)]
        hint = f" {likely[0]!r} could be one: save it alone." if likely else ""
        raise ModelError(
            f"{path}: holds {first_few([str(name) for name in content]) or 'nothing'}, expected a state dict, at the "
            f"top level or as {', '.join(_PLAIN)}.{hint}"
        )
    return _State(wanted[0], content if wanted == [_TOP] else places[wanted[0]], {})


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(tensor, torch.Tensor) for tensor in value.values())


def _without_prefixes(file: WeightsFile, state: _State, wanted: Mapping[str, Any]) -> _State:
    """Remove the known prefixes from each name, as many as it takes until it is one of the model's names."""
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    removed, left_out = Counter[str](), []
    for name, value in state.tensors.items():
        prefix = _prefix_of(str(name), wanted)
        short = str(name).removeprefix(prefix)
        if short == _COUNTER and short not in wanted:
            left_out.append(str(name))
            continue
        if short in found:
            raise ModelError(
                f"{file.path}: both {origins[short]} and {name} would be {short} of the model. Save the weights you "
                "mean alone."
            )
        found[short], origins[short] = value, str(name)
        removed.update([prefix] if prefix else [])
    versions = _versions(state.tensors, removed)
    if versions is None and found.keys() == wanted.keys():  # safetensors has no versions: nothing is converted
        versions = _versions(wanted, {})
    kept = _StateDict(found)
    if versions is not None:
        kept._metadata = versions  # noqa: SLF001 -- torch's own name
    return _State(state.place, kept, dict(removed), tuple(left_out))


def _prefix_of(name: str, wanted: Collection[str]) -> str:
    """Return the prefix without which a name is one of those wanted; all known ones if there is no such prefix.

    >>> _prefix_of("module.model.fc.bias", {"fc.bias"}), _prefix_of("model.fc.bias", {"model.fc.bias"})
    ('module.model.', '')
    """
    prefixes = list(_prefixes_of(name))
    return next((prefix for prefix in prefixes if name.removeprefix(prefix) in wanted), prefixes[-1])


def _prefixes_of(name: str) -> Iterator[str]:
    """Yield the known prefixes of a name, from none to all of them."""
    prefix = ""
    while True:
        yield prefix
        rest = name.removeprefix(prefix)
        more = next((known for known in _PREFIXES if rest.startswith(known) and rest != known), None)
        if more is None:
            return
        prefix += more


def _versions(tensors: Mapping[str, Any], removed: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the versions of the layers, which torch keeps beside a state dict and reads to convert older ones."""
    versions = getattr(tensors, "_metadata", None)
    if not isinstance(versions, Mapping):
        return None
    found = {}
    for name, version in versions.items():
        prefix = next((prefix for prefix in sorted(removed, key=len)[::-1] if f"{name}.".startswith(prefix)), "")
        found[f"{name}."[len(prefix) :].rstrip(".")] = version
    return found


class _StateDict(dict[str, Any]):
    """A dict that can carry torch's `_metadata`."""

    _metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Why a state dict does not fit a model.

    Attributes:
        missing: Names that only the model has.
        unexpected: Names that only the file has.
        shapes: Shape in the file and in the model, where they differ.
        failed: What torch said, if it refused.
    """

    missing: Collection[str]
    unexpected: Collection[str]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    failed: str = ""

    def __str__(self) -> str:
        other = [f"{name} is {_shown(got)}, not {_shown(expected)}" for name, (got, expected) in self.shapes.items()]
        lists = {"Missing": self.missing, "Unexpected": self.unexpected, "Of another shape": other}
        return ". ".join(f"{what}: {first_few(names)}" for what, names in lists.items() if names) or self.failed

    @property
    def num_classes(self) -> int | None:
        """The number of classes in the file, if that is all that differs."""
        if self.missing or self.unexpected or not 0 < len(self.shapes) <= _MAX_CLASSIFIERS:
            return None
        heads = {(got[0], expected[0]) for got, expected in self.shapes.values() if got and got[1:] == expected[1:]}
        is_all = all(got and got[1:] == expected[1:] for got, expected in self.shapes.values())
        return heads.pop()[0] if is_all and len(heads) == 1 else None


def _fill(loaded: LoadedModel, module: torch.nn.Module, file: WeightsFile, state: _State) -> None:
    """Load the state dict; whatever is missing, left over or of another shape is an error."""
    try:
        found = module.load_state_dict(state.tensors, strict=False)
        misfit = _Misfit(found.missing_keys, found.unexpected_keys, {})
    except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise ModelRunError(f"{file.path}: out of memory while the checkpoint was loaded.") from error
        own = module.state_dict()
        missing = [name for name in own if name not in state.tensors]
        unexpected = [name for name in state.tensors if name not in own]
        misfit = _Misfit(missing, unexpected, _other_shapes(own, state.tensors), describe(error))
    if str(misfit):
        advice = _advice(file, misfit, num_names=len(module.state_dict()))
        raise ModelError(f"{file.path}: does not fit {loaded.spec}. {misfit}. {advice}")


def _other_shapes(
    own: Mapping[str, Any], tensors: Mapping[str, Any]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {
        name: (tuple(tensors[name].shape), tuple(value.shape))
        for name, value in own.items()
        if isinstance(value, torch.Tensor)
        and isinstance(tensors.get(name), torch.Tensor)
        and tensors[name].shape != value.shape
    }


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _advice(file: WeightsFile, misfit: _Misfit, *, num_names: int) -> str:
    if misfit.num_classes is not None:
        return f"Add --num-classes {misfit.num_classes}{_classes_advice(misfit.num_classes)}."
    architecture = file.content.get("arch")
    said = f" The file says arch {architecture!r}." if isinstance(architecture, str) else ""
    if 2 * (len(misfit.missing) + len(misfit.shapes)) > num_names:
        return f"It is of another architecture.{said}"
    return f"Check the architecture and --model-kwargs.{said}"


def _classes_advice(num_classes: int) -> str:
    """Return which other option is needed; a model of fewer classes than the 1,000 is refused anyhow."""
    if num_classes == NUM_CLASSES + 1:
        return " and --background first (or last)"
    return " and --class-map FILE, with the class of each output" if num_classes > NUM_CLASSES else ""
