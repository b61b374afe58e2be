"""Which ``.pt2`` files are compiled code, read before any of it is run; the packages here hold none."""

from __future__ import annotations

import json
import platform
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import EvalTransform, ModelError, load_model

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "archive/data/aotinductor/model/"
HERE = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": platform.system().lower(), "AOTI_MACHINE": platform.machine()}
CHECKS = """
AOTI_NOINLINE static void check_input_0(
    AtenTensorHandle* input_handles
) {
    int32_t arg0_1_expected_dtype = aoti_torch_dtype_float16();
    if (arg0_1_size[0] < 2) {
    }
    if (3 != arg0_1_size[1]) {
    }
    if (48 != arg0_1_size[2]) {
    }
    if (64 != arg0_1_size[3]) {
    }
}
"""


def package(
    path: Path, text: str = CHECKS, *, so: bool = True, folder: str = FOLDER, about: dict[str, str] | None = None
) -> str:
    """Write an archive with the names of a package: its program is text."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/archive_format", "pt2")
        archive.writestr(f"{folder}a.wrapper_metadata.json", json.dumps(HERE | (about or {})))
        archive.writestr(f"{folder}a.wrapper.cpp", text)
        if so:
            archive.writestr(f"{folder}a.wrapper.so", "no machine code")
    return str(path)


def test_compiled_code_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    """The message says what it is, and the option that runs it; the code is not touched."""
    with pytest.raises(ModelError, match=r"m\.pt2: a package of AOTInductor, .* machine code .*: --trust-code\.$"):
        load_model(package(tmp_path / "m.pt2"))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"AOTI_MACHINE": "riscv64"}, "compiled for riscv64, this machine is"),
        ({"AOTI_PLATFORM": "win32"}, "compiled for win32, this machine is"),
        ({}, "not a whole package of AOTInductor"),
    ],
)
def test_code_of_another_machine_is_not_run(about: dict[str, str], message: str, tmp_path: Path) -> None:
    """It would end the process; what is no code at all is refused by the loader."""
    with pytest.raises(ModelError, match=message) as caught:
        load_model(package(tmp_path / "m.pt2", about=about), trust_code=True)
    assert "\n" not in str(caught.value)


def test_code_for_a_newer_processor_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that the processor does not have ends the process too."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    path = package(tmp_path / "m.pt2", about={"AOTI_CPU_ISA": "AVX512 AVX512_VNNI"})
    with pytest.raises(ModelError, match="compiled for processors with AVX512, this one has AVX2"):
        load_model(path, trust_code=True)


TWO_INPUTS = CHECKS + CHECKS.replace("check_input_0", "check_input_1")
GREY = CHECKS.replace("3 != arg0_1_size[1]", "1 != arg0_1_size[1]")


@pytest.mark.parametrize(
    ("text", "message"),
    [(TWO_INPUTS, "takes 2 inputs, expected one"), (GREY, r"an input of shape \? x 1 x 48 x 64, expected images")],
)
def test_what_takes_no_images_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """By the checks in the text that it was compiled from."""
    with pytest.raises(ModelError, match=message):
        load_model(package(tmp_path / "m.pt2", text), trust_code=True)


def test_one_package_with_one_program(tmp_path: Path) -> None:
    """One without code for this system, or of another name, is refused."""
    with pytest.raises(ModelError, match="holds no compiled program for this system"):
        load_model(package(tmp_path / "m.pt2", so=False), trust_code=True)
    with pytest.raises(ModelError, match=r"holds 1 models \(other\), expected one: model"):
        load_model(package(tmp_path / "n.pt2", folder=FOLDER.replace("model", "other")), trust_code=True)


def test_the_limits_are_those_that_the_code_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 2 or more float16 images of 48 x 64, also for the preprocessing."""
    monkeypatch.setattr("torch._inductor.aoti_load_package", lambda _: torch.zeros)
    model = load_model(package(tmp_path / "m.pt2"), trust_code=True)
    assert model.accepts is not None
    assert model.accepts.sizes == ((2, None), (3, 3), (48, 48), (64, 64))
    assert (model.accepts.dtype, model.accepts.devices) == (torch.float16, ("cpu",))
    assert model.transform == EvalTransform((48, 64))
