"""What a ``.pt2`` file holds, read before torch loads it: a file that would run code is refused.

A file from ``torch.export.save`` is a zip archive of the program as JSON, its weights as plain bytes and an example of
its input as a pickle. `torch.export.load` also reads files that hold more than that, and trusts them: it unpickles any
object, loads native code, imports modules that an enumeration names, and evaluates expressions and generated functions
in which names of the file stand. Each of these places is checked here against what `torch.export.save` writes.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from typing import IO, TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.models.pt2.expressions import is_arithmetic

if TYPE_CHECKING:
    from torch.export.pt2_archive import PT2ArchiveReader

__all__ = ["check_archive"]

_PROGRAM, _EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_PAYLOADS = {"data/weights/": "model_weights_config.json", "data/constants/": "model_constants_config.json"}
_OTHER_RECORDS = ("archive_format", "archive_version", "byteorder", "version", ".data/", "extra/")
_NATIVE = ("data/aotinductor/", "data/executorch/", "data/mtia/")
_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|torchvision|quantized|quantized_decomposed)\.\w+\.\w+")
_FILE_OPERATORS = ("torch.ops.aten.from_file.", "torch.ops.aten.save.")
_HIGHER_ORDER = {
    f"torch.ops.higher_order.{name}"
    for name in (
        "cond", "map_impl", "while_loop", "scan", "associative_scan", "wrap_with_set_grad_enabled",
        "wrap_with_autocast", "flex_attention", "out_dtype", "invoke_subgraph",
    )
}  # fmt: skip
_ON_NUMBERS = {
    f"_operator.{name}"
    for name in (
        "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt", "mod", "mul", "ne", "neg", "or_", "pos",
        "pow", "sub", "truediv",
    )
} | {
    "math.trunc", "math.ceil", "math.floor", "torch._sym_sqrt", "torch.sym_float", "torch.sym_int", "torch.sym_ite",
    "torch.sym_max", "torch.sym_min", "torch.sym_not",
}  # fmt: skip
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_WORDS = re.compile(r"[\w.+:/@<> -]*")  # no quote, bracket, comma or newline: nothing that ends a string or a name
_FREE_TEXT = {"as_string", "as_strings", "metadata"}  # torch quotes the first two, and parses the third

_MALFORMED = (
    RuntimeError, AssertionError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
)  # fmt: skip


def check_archive(file: IO[bytes], path: str) -> None:
    """Read the parts of a ``.pt2`` file that torch would evaluate, unpickle or run.

    Args:
        file: The open file; give the same one to `torch.export.load`, so that what is loaded is what was checked.
        path: Its name, for messages.

    Raises:
        ModelError: the file is no program of `torch.export.save`, or holds code or pickled objects besides tensors.
    """
    from torch.export.pt2_archive import PT2ArchiveReader  # noqa: PLC0415 -- takes seconds, and imports torch's compiler

    try:
        with zipfile.ZipFile(file) as archive:  # torch reads such a file as the older format if reading fails
            older = "version" in archive.namelist()
        if older:
            raise ModelError(
                f"{path}: saved by torch 2.7 or older. Load it there, and save it with a newer torch.export."
            )
        file.seek(0)
        reader = PT2ArchiveReader(file)
        records = reader.get_file_names()
    except (*_MALFORMED, zipfile.BadZipFile) as error:
        raise _not_exported(path, file) from error
    _check_records(records, path)
    try:
        _check_program(json.loads(reader.read_bytes(_PROGRAM)), path)
        for folder in _PAYLOADS:
            _check_payloads(reader, folder, path)
        if _EXAMPLE in records:
            _check_pickle(reader.read_bytes(_EXAMPLE), _EXAMPLE, path)
    except _MALFORMED as error:
        raise ModelError(f"{path}: not a whole program of torch.export.save: {error}") from error


def _not_exported(path: str, file: IO[bytes]) -> ModelError:
    """Return the error for a file that is not an archive of torch.export, with what it is instead, if known."""
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile):
        names = []
    what = ""
    if any(name.startswith("code/") for name in names):
        what = " It is a TorchScript program: name it .pt, or .torchscript."
    elif "data.pkl" in names:
        what = " It holds weights: build the model in a function of yours and load them there, -m my_models:make."
    return ModelError(f"{path}: not a program saved by torch.export.save.{what}")


def _check_records(records: list[str], path: str) -> None:
    """Refuse native code, other programs, and unknown records."""
    for name in records:
        if name.startswith(_NATIVE):
            raise _code(path, f"native code ({name})")
        known = name in (_PROGRAM, _EXAMPLE) or name.startswith((*_PAYLOADS, *_OTHER_RECORDS))
        if not known:
            raise ModelError(f"{path}: holds {name!r}, which torch.export.save does not write for one program.")
    if _PROGRAM not in records:
        raise ModelError(f"{path}: not a program saved by torch.export.save: it holds no {_PROGRAM}.")


def _check_payloads(reader: PT2ArchiveReader, folder: str, path: str) -> None:
    """Check the pickles among the weights or constants."""
    records = reader.get_file_names()
    if f"{folder}model.pt" in records:  # the form of torch 2.8: one pickle
        _check_pickle(reader.read_bytes(f"{folder}model.pt"), f"{folder}model.pt", path)
        return
    config = json.loads(reader.read_bytes(folder + _PAYLOADS[folder]))["config"]
    _check_text(config, path)
    for payload in config.values():
        name = payload["path_name"]
        if folder == "data/constants/" and not name.startswith("tensor_"):
            raise _code(path, f"a pickled object ({folder}{name})")
        if payload["use_pickle"]:
            record = os.path.join(folder, name)  # noqa: PTH118 -- as torch forms the name of the record
            _check_pickle(reader.read_bytes(record), record, path)


def _check_pickle(content: bytes, record: str, path: str) -> None:
    """Load a pickle as torch does where it allows tensors and plain containers only."""
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _code(path, f"pickled objects besides tensors ({record})") from error


def _check_program(program: dict[str, Any], path: str) -> None:
    """Check the operators, expressions, names and types of inputs of a program."""
    for guard in program.get("guards_code", []):
        if not is_arithmetic(guard):
            raise _code(path, f"a condition that is not arithmetic ({_shown(guard)})")
    _check_text({key: value for key, value in program.items() if key != "guards_code"}, path)


def _check_text(value: object, path: str, key: str = "") -> None:
    """Check each string below a part of the program by what torch does with it."""
    if isinstance(value, dict):
        for name, part in value.items():
            if key != "range_constraints":  # its keys are sizes, and are only compared
                _check_string("", name, path)
            if name not in _FREE_TEXT:
                _check_text(part, path, name)
    elif isinstance(value, list):
        for part in value:
            _check_text(part, path, key)
    elif isinstance(value, str):
        _check_string(key, value, path)


def _check_string(key: str, text: str, path: str) -> None:
    if key == "expr_str":
        if not is_arithmetic(text):
            raise _code(path, f"a size that is not arithmetic ({_shown(text)})")
    elif key in ("target", "as_operator"):
        _check_operator(text, path)
    elif key in ("in_spec", "out_spec"):
        _check_tree(json.loads(text), path)
    elif key in ("name", "as_name", "forward_arg_names"):
        if text and not text.isidentifier():
            raise _code(path, f"an invalid name ({_shown(text)})")
    elif not _WORDS.fullmatch(text):
        raise _code(path, f"an invalid name ({_shown(text)})")


def _check_operator(target: str, path: str) -> None:
    """Refuse what is no operator on tensors or numbers, and the two operators that read and write files."""
    if target in _HIGHER_ORDER | _ON_NUMBERS:
        return
    if not _OPERATOR.fullmatch(target) or target.startswith(_FILE_OPERATORS):
        raise _code(path, f"a call of {_shown(target)}, which is not one of PyTorch's operators on tensors")
    found: Any = torch.ops
    for name in target.split(".")[2:]:
        found = getattr(found, name, None)
    if not isinstance(found, torch._ops.OpOverload):  # noqa: SLF001 -- torch has no public name for this type
        raise ModelError(
            f"{path}: uses {target}, which torch {torch.__version__} does not have. Install the torch that exported "
            "it, or import the package that defines the operator."
        )


def _check_tree(spec: object, path: str) -> None:
    """Check the structure of inputs or outputs: torch imports the modules of other types, and of enumerations."""
    if isinstance(spec, list):
        for part in spec:
            _check_tree(part, path)
    elif isinstance(spec, dict):
        if spec.get("type") not in _TREE_TYPES:
            raise ModelError(
                f"{path}: takes or returns a {_shown(str(spec['type']))}, expected tensors. Export a module that takes "
                "the images and returns the logits."
            )
        context = json.loads(spec.get("context") or "null")
        names = context if isinstance(context, list) else [] if context is None else [context]
        if not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise _code(path, f"a type of input that is not plain ({_shown(str(context))})")
        _check_tree(spec.get("children_spec", []), path)


def _code(path: str, what: str) -> ModelError:
    return ModelError(
        f"{path}: refused, as it holds {what}: loading it could run any code. If you trust the file: --trust-code."
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
