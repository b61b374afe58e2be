"""TorchScript programs: archives of ``torch.jit.save``, checked before torch loads them.

Such a file is a program in torch's own small language, with its weights. torch compiles the text and reads the pickles
of the archive with a reader of its own, which makes no Python objects: no Python runs. But the language has operators
that read and write files (``aten::save``, ``aten::from_file``), and functions of it run while the file is loaded. So
the text is searched first for these, for operators and classes of other libraries, and for ways to name them otherwise.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError, ModelRunError
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.base import LoadedModel
from wds_real.evaluation.models.model_file import file_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TorchScript", "is_torchscript", "load_torchscript"]

_GAP = r"(?:\s|\\|#[^\n]*\n)*"  # what may stand between a dot and a name
_FILES = re.compile(rf"(?:\.{_GAP}|getattr\b[^\n]*[\"'])(save|from_file)\b")
_NAMED = re.compile(r"\bgetattr\b(?!\([^\n\"'\\]*, \"[^\n\"'\\]*\"\))")  # not as torch writes it, with a plain name
_LIBRARIES = "aten|prim|prims|quantized|_quantized|torchvision|mkldnn_prepacked"
_OPERATORS = re.compile(rf"(?<!\.)\bops\b(?!\.(?:{_LIBRARIES})\.\w)")
_CLASSES = re.compile(r"\btorch\.classes\b(?!\.(?:quantized|rnn|sparse|xnnpack|mkldnn)\.\w)")
_NAMESPACES = re.compile(r"\b__torch__\b(?!\.\w)|\b__torch__\.torch\b(?!\.\w)")  # given another name, or looked into
_SEARCHED = [
    (_FILES, "an operator that reads or writes files"),
    (_NAMED, "a name that it computes at run time"),
    (_OPERATORS, "operators that are not PyTorch's own"),
    (_NAMESPACES, "a name that it computes at run time"),
    (_CLASSES, "a class that is not PyTorch's own"),
]


def is_torchscript(path: str) -> bool:
    """Return whether a file is an archive of ``torch.jit.save``; one of ``torch.save`` is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


class TorchScript(torch.nn.Module):
    """A TorchScript program that runs each batch in the same way.

    With torch's optimisations, the first batches of a process run differently from the later ones, and the last bits of
    scores may differ. They are off here, so a batch has the same scores at every position.
    """

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, image: torch.Tensor) -> Any:  # noqa: ANN401 -- whatever the program returns
        """Return what the program returns for a batch.

        Raises:
            RuntimeError: the program failed; the message is its reason, without the text of the program.
        """
        try:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # documented, but not in its list
                return self.program(image)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            if is_out_of_memory(error) or not any("TorchScript interpreter" in line for line in lines):
                raise
            raise RuntimeError(lines[-1].removeprefix("RuntimeError: ")) from error


def load_torchscript(path: str, *, trust_code: bool = False) -> LoadedModel:
    """Return the program in a file of ``torch.jit.save``, with the default transform.

    Args:
        path: The file.
        trust_code: Load it even if its program uses files, or operators or classes of other libraries.

    Raises:
        ModelError: there is no such file, it is no whole TorchScript program, or the search refuses it.
        ModelRunError: memory ran out.
    """
    facts = {"sha256": file_digest(path, "a TorchScript program")}
    try:
        reader = torch._C.PyTorchFileReader(path)  # noqa: SLF001 -- what torch.jit.load reads with
        if not trust_code:
            _check_text(reader, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, which the user of a file cannot change
            program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except ModelError:
        raise
    except Exception as error:  # whatever torch meets in a damaged file
        if is_out_of_memory(error):
            raise ModelRunError(f"{path}: out of memory while it was loaded.") from error
        raise ModelError(f"{path}: not a whole TorchScript program: {describe(error)}.") from error
    _check_signature(program, path)
    return LoadedModel(path, TorchScript(program).eval(), facts=facts)


def _check_text(reader: Any, path: str) -> None:  # noqa: ANN401 -- torch does not export its type
    """Refuse a program whose text or pickles use files, or anything that is not PyTorch's own."""
    names: Sequence[str] = reader.get_all_records()
    if "model.json" in names:
        raise ModelError(f"{path}: saved by torch 1.0. Load it there, and save it with a newer torch.")
    for name in names:
        if name.startswith("code/") and not name.endswith(".debug_pkl"):
            searched = _SEARCHED[:]
        elif name.endswith(".pkl"):
            searched = _SEARCHED[-1:]
        else:
            continue
        text = reader.get_record(name).decode("latin-1")
        for pattern, what in searched:
            if pattern.search(text):
                raise ModelError(
                    f"{path}: refused, as its program has {what} ({name}). If you trust the file: --trust-code."
                )


def _check_signature(program: torch.jit.ScriptModule, path: str) -> None:
    """Refuse a program that does not take one tensor."""
    if not hasattr(program, "forward"):
        raise ModelError(f"{path}: the program has no forward method. Save a model that takes images.")
    arguments = program.forward.schema.arguments[1:]  # type: ignore[attr-defined]  # of a method of TorchScript
    needed = [argument for argument in arguments if not argument.has_default_value()]
    if len(needed) > 1 or not arguments or str(arguments[0].type) != "Tensor":
        names = ", ".join(f"{argument.name}: {argument.type}" for argument in arguments) or "nothing"
        raise ModelError(f"{path}: takes {names}, expected one tensor: images (B, 3, H, W).")
