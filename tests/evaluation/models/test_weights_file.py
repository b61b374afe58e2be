"""Files of weights: torch.save's formats and safetensors by their content; nothing that a file names is run."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wds_real import ModelError, ModelRunError
from wds_real.evaluation.models.weights_file import read_weights_file

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102530333\n"


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class Shell:
    """Pickles as a command for the shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(content: Any) -> bool:
    return content.keys() == STATE.keys() and all(torch.equal(content[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("name", ["m.pth", "m.pt", "m.bin", "m.ckpt", "m.pth.tar", "m", "m.safetensors"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_the_content_says_the_kind(name: str, form: str) -> None:
    """Whatever the file is called; its digest is that of its bytes."""
    path = Path(name)
    if form == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    found = read_weights_file(path)
    assert same(found.content)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(LFS, "a Git LFS pointer, .* Run `git lfs pull`", id="LFS pointer"),
        pytest.param(b"\n <!DOCTYPE html><title>Sign in</title>", "looks like a web page", id="web page"),
        pytest.param(b'<?xml version="1.0"?><Error/>', "looks like a web page", id="error of a server"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes it", id="HDF5"),
        pytest.param(b"\x1f\x8b" + bytes(99), "compressed with gzip", id="gzip"),
        pytest.param(b"\x93NUMPY\1\0" + bytes(99), "a NumPy array", id="NumPy"),
        pytest.param(b"conv1.weight 0.5\n", "not a checkpoint .*: starts with 63 6f 6e 76", id="text"),
        pytest.param(bytes(4096), "not a checkpoint .*: starts with 00 00", id="zeros"),
        pytest.param(pickle.dumps({"a": 1}), "a pickle that torch.save did not write", id="pickle"),
        pytest.param(pickle.dumps(Shell("touch made")), "a pickle that torch.save did not write", id="code"),
    ],
)
def test_other_files_are_named(content: bytes, text: str) -> None:
    """In one line, with what to do."""
    Path("x.pth").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^x\.pth: {text}") as caught:
        read_weights_file(Path("x.pth"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not Path("made").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_cut_file_is_damaged_wherever_it_ends(form: str) -> None:
    """No cut is loaded as fewer weights, and none is anything but one ModelError."""
    if form == "safetensors":
        data = pytest.importorskip("safetensors.torch").save(STATE)
    else:
        torch.save(STATE, "whole.pth", _use_new_zipfile_serialization=form == "zip")
        data = Path("whole.pth").read_bytes()
    for length in range(1, len(data), max(1, len(data) // 60)):
        Path("x.pth").write_bytes(data[:length])
        with pytest.raises(
            ModelError,
            match=r"^x\.pth: (the file is cut or damaged|not a checkpoint|a pickle|needs (collections|torch))",
        ):
            read_weights_file(Path("x.pth"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("hostile", [Touch(Path("made")), Shell("touch made")], ids=["Path.touch", "os.system"])
def test_code_in_a_file_is_not_run_and_named(hostile: object, legacy: bool) -> None:
    """The file that it would make is not made; unpickling it in full makes it, so the attack is real."""
    torch.save({"state_dict": STATE, "more": hostile}, "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"^x\.pth: needs (builtins\.)?(getattr|posix\.system)") as caught:
        read_weights_file(Path("x.pth"))
    assert not Path("made").exists()
    assert "only tensors and plain containers are read, as anything else may run code" in str(caught.value)
    torch.load("x.pth", weights_only=False)
    assert Path("made").exists()


@pytest.mark.parametrize("value", ["", "0", "1"])
def test_the_environment_does_not_allow_code(value: str) -> None:
    """Also where torch is told to load everything by default."""
    torch.save({"more": Shell("touch made")}, "x.pth")
    code = "from pathlib import Path; from wds_real.evaluation.models.weights_file import read_weights_file; "
    done = subprocess.run(
        [sys.executable, "-c", code + "read_weights_file(Path('x.pth'))"],
        env=os.environ | ({"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": value} if value else {}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ModelError: x.pth: needs posix.system" in done.stderr
    assert not Path("made").exists()


def test_what_a_file_needs_is_named_with_the_command_that_saves_the_tensors() -> None:
    """Settings of a training script are the most common case. The command that the message gives works."""
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "best": np.float64(76.1)}, "x.pth")
    with pytest.raises(ModelError, match=r"^x\.pth: needs argparse\.Namespace, numpy.* to be loaded") as caught:
        read_weights_file(Path("x.pth"))
    command = str(caught.value).partition("python -c '")[2].partition("'")[0]
    subprocess.run([sys.executable, "-c", command], check=True)
    assert same(read_weights_file(Path("weights.pth")).content)


def test_a_whole_model_is_told_by_its_class() -> None:
    """A module saved by torch.save needs its code."""
    torch.save(torch.nn.Linear(2, 2), "x.pth")
    with pytest.raises(ModelError, match=r"^x\.pth: needs torch\.nn\.modules\.linear\.Linear to be loaded"):
        read_weights_file(Path("x.pth"))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_is_no_checkpoint() -> None:
    """A TorchScript file and another zip archive are told apart from a damaged file."""
    torch.jit.script(torch.nn.Linear(2, 2)).save("x.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"^x\.pt: a TorchScript program, which holds its weights"):
        read_weights_file(Path("x.pt"))
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ModelError, match=r"^x\.zip: a zip archive that torch\.save did not write"):
        read_weights_file(Path("x.zip"))


def test_folders_missing_files_and_pipes() -> None:
    """Each is named; nothing waits for a writer. The folder of a distributed checkpoint has its conversion."""
    Path("folder").mkdir()
    Path("sharded").mkdir()
    Path("sharded/.metadata").touch()
    os.mkfifo("pipe")
    for name, text in {
        "folder": "a folder, expected a file of weights",
        "sharded": r"dcp_to_torch sharded FILE\.pth",
        "none.pth": "No such file",
        "pipe": "pipe",
    }.items():
        with pytest.raises(ModelError, match=rf"^{name}: .*{text}"):
            read_weights_file(Path(name))


def test_safetensors_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to install it; pickles are read without."""
    pytest.importorskip("safetensors.torch").save_file(STATE, "x.safetensors")
    torch.save(STATE, "x.pth")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModelError, match=r"^x\.safetensors: safetensors is not installed .*pip install"):
        read_weights_file(Path("x.safetensors"))
    assert same(read_weights_file(Path("x.pth")).content)


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a failure of the run."""

    def load(*_: Any, **__: Any) -> None:
        raise MemoryError

    torch.save(STATE, "x.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(ModelRunError, match=r"^x\.pth: out of memory"):
        read_weights_file(Path("x.pth"))
