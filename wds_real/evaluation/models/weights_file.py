"""Files of weights: their kind and their content, read without running code from them."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError, ModelRunError, first_few
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.base import import_package
from wds_real.storage.files import OpenFile, reason_of, stand_in

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WeightsFile", "digest_of", "read_weights_file"]

# First bytes of files that are no PyTorch weights, and what to do about them.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it, expected a PyTorch checkpoint. Convert it first."),
    (b"\x1f\x8b", "compressed with gzip. Unpack it: gunzip."),
    (b"\x93NUMPY", "a NumPy array, expected a PyTorch checkpoint. Convert it first."),
    (b"\x80", "a pickle that torch.save did not write; loading one may run code. Save the state dict with torch.save."),
)
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number at the start of torch.save's older format
_GLOBAL = re.compile(r"GLOBAL ((?:\w+\.)*\w+) (?:was|whose)")
_CUT = "the file is cut or damaged. Download or save it again."
# What torch's reader raises for damaged files.
_UNREADABLE = (
    RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError, AssertionError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        content: A mapping of names to tensors or to further mappings, if it is a checkpoint at all.
        sha256: Of the file, in hex.
    """

    path: Path
    content: Any
    sha256: str


def read_weights_file(path: Path) -> WeightsFile:
    """Read a file of `torch.save` or of safetensors; its content says which of them it is, not its name.

    Pickles are read by torch's restricted reader, which makes tensors and plain containers only and calls nothing that
    the file names.

    Raises:
        ModelError: there is no such file, it is something else, it is damaged, or it needs Python objects.
        ModelRunError: memory ran out.
    """
    if path.is_dir():
        raise ModelError(f"{path}: {_folder_advice(path)}")
    try:
        owned = OpenFile.open(path)  # refuses pipes and devices
        with open(owned.descriptor, "rb", closefd=False) as file:
            start = file.read(1024)
            _check_kind(path, start)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content = _read_safetensors(path) if start[8:9] == b"{" else _read_pickle(path, file)
    except OSError as error:
        raise ModelError(f"{path}: {reason_of(error)}") from error
    return WeightsFile(path, content, sha256)


def digest_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file that another library loads, after a check of its kind.

    Raises:
        ModelError: there is no such file, or it holds neither weights nor JSON settings.
    """
    try:
        owned = OpenFile.open(path)
        with open(owned.descriptor, "rb", closefd=False) as file:
            if path.suffix != ".json":  # settings beside the weights
                _check_kind(path, file.read(1024))
                file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {reason_of(error)}") from error


def _folder_advice(path: Path) -> str:
    if (path / ".metadata").is_file():
        return (
            "a folder of torch.distributed.checkpoint. Make one file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE.pth."
        )
    return "a folder, expected a file of weights."


def _check_kind(path: Path, start: bytes) -> None:
    """Raise if the first bytes of a file are of another kind than those that hold weights."""
    if not start:
        raise ModelError(f"{path}: the file is empty. Download or save it again.")
    if (what := stand_in(start)) is not None:
        raise ModelError(f"{path}: {what}")
    if start.startswith(_ZIP) or _LEGACY in start or start[8:9] == b"{":
        return
    for magic, what in _OTHER_KINDS:
        if start.startswith(magic):
            raise ModelError(f"{path}: {what}")
    raise ModelError(f"{path}: not a checkpoint of torch.save or safetensors: starts with {start[:8].hex(' ')}.")


def _read_safetensors(path: Path) -> Any:  # noqa: ANN401 -- names and tensors
    package = import_package("safetensors", str(path), "pip install safetensors")
    from safetensors.torch import load_file  # noqa: PLC0415 -- optional

    try:
        return load_file(path)
    except package.SafetensorError as error:
        raise ModelError(f"{path}: {_CUT} ({describe(error)})") from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path, file: IO[bytes]) -> Any:  # noqa: ANN401 -- whatever it holds
    if file.read(len(_ZIP)) == _ZIP:
        file.seek(0)
        _check_archive(path, file)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files in older formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = _needed_objects(path, str(error))
        raise ModelError(f"{path}: {_needs(needed, path) if needed else _CUT}") from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _check_archive(path: Path, file: IO[bytes]) -> None:
    """Raise unless a zip archive is one of `torch.save`."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise ModelError(f"{path}: {_CUT}") from error
    if "constants.pkl" in names:
        raise ModelError(f"{path}: a TorchScript program, which holds its weights: a model by itself, no checkpoint.")
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise ModelError(f"{path}: an exported program, which holds its weights. Evaluate it by itself: -m {path}.")
    if "data.pkl" not in names:
        raise ModelError(f"{path}: a zip archive that torch.save did not write, expected a checkpoint.")


def _needed_objects(path: Path, message: str) -> list[str]:
    """Return the names of what a pickle needs besides tensors; nothing of it is imported."""
    try:
        found: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, OSError, *_UNREADABLE):  # the older format: the message has the first one
        found = []
    return sorted(found) or _GLOBAL.findall(message)[:1]


def _needs(names: list[str], path: Path) -> str:
    """Return why a pickle is not read, with what it needs, and how to save its tensors alone."""
    return (
        f"needs {first_few(names)} to be loaded, and only tensors and plain containers are read, as anything else may "
        "run code. If you trust the file, save its tensors alone, with the name that its state dict has: "
        f"""python -c 'import torch; c = torch.load("{path}", weights_only=False); """
        """torch.save(c["state_dict"], "weights.pth")'."""
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    if is_out_of_memory(error):
        return ModelRunError(f"{path}: out of memory while the checkpoint was read.")
    return ModelError(f"{path}: {_CUT}")
