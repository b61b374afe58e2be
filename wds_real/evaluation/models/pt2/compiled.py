"""Packages of AOTInductor: programs of torch.export, compiled to machine code."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import zipfile

import torch

from wds_real.errors import ModelError, ModelRunError
from wds_real.evaluation.failures import describe, is_out_of_memory
from wds_real.evaluation.models.base import AcceptedInput, LoadedModel
from wds_real.evaluation.models.model_file import file_digest
from wds_real.image.transform import EvalTransform

__all__ = ["load_compiled"]

# Without this variable the code reads beyond the end of a batch that is too small, and returns numbers all the same.
_CHECK_INPUTS = "AOTI_RUNTIME_CHECK_INPUTS"
_WRAPPER = re.compile(r"data/aotinductor/model/[^/]+\.cpp")
_CHECKED_INPUT = re.compile(r"static void check_input_(\d+)\((.*?)\n}", re.DOTALL)
_DTYPE = re.compile(r"expected_dtype = aoti_torch_dtype_(\w+)\(\)")
_FIXED = re.compile(r"if \((\d+) != \w+_size\[(\d)\]\)")
_SMALLEST = re.compile(r"if \(\w+_size\[(\d)\] < (\d+)\)")
_LARGEST = re.compile(r"if \(\w+_size\[(\d)\] > (\d+)\)")
_IMAGES = 4  # dimensions


def load_compiled(path: str) -> LoadedModel:
    """Return the program in a package of ``torch._inductor.aoti_compile_and_package``, with the default transform.

    Loading it runs machine code of the file.

    Raises:
        ModelError: the file is no whole package, is for another device or processor, or takes no batch of images.
        ModelRunError: memory ran out.
    """
    facts = {"sha256": file_digest(path, "a package of AOTInductor"), "runtime": f"AOTInductor {torch.__version__}"}
    log = logging.getLogger("torch.utils.cpp_extension")
    before, log.disabled = log.disabled, True  # it warns about compilers, which are not needed
    try:
        about, text = _read(path)
        _check_machine(path, about)
        accepts = _accepted_input(path, text, about.get("AOTI_DEVICE_KEY", "cpu"))
        os.environ[_CHECK_INPUTS] = "1"
        program = torch._inductor.aoti_load_package(path)  # noqa: SLF001 -- the documented way
    except ModelError:
        raise
    except Exception as error:  # whatever torch meets in a damaged file
        if is_out_of_memory(error):
            raise ModelRunError(f"{path}: out of memory while it was loaded.") from error
        raise ModelError(f"{path}: not a whole package of AOTInductor: {describe(error)}.") from error
    finally:
        log.disabled = before
    transform = EvalTransform() if accepts is None else accepts.transform()
    return LoadedModel(path, program, transform, accepts=accepts, facts=facts)


def _read(path: str) -> tuple[dict[str, str], str]:
    """Return what a package was compiled for, and the text that it was compiled from."""
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        models = {name.split("/")[2] for name in names if name.startswith("data/aotinductor/")}
        if models != {"model"}:
            raise ModelError(f"{path}: holds {len(models)} models ({', '.join(sorted(models))}), expected one: model.")
        if not any(name.endswith(".so") for name in names):
            raise ModelError(f"{path}: holds no compiled program for this system ({', '.join(sorted(names)[:2])} ...).")
        about: dict[str, str] = {}
        text = ""
        for whole, name in zip(archive.namelist(), names, strict=True):
            if name.endswith("_metadata.json"):
                about |= json.loads(archive.read(whole))
            elif _WRAPPER.fullmatch(name):
                text += archive.read(whole).decode("utf-8", "replace")
    return about, text


def _check_machine(path: str, about: dict[str, str]) -> None:
    """Refuse code of another system or processor: running it would end the process."""
    here = {"AOTI_PLATFORM": platform.system().lower(), "AOTI_MACHINE": platform.machine()}
    for key, found in here.items():
        if about.get(key, found) != found:
            raise ModelError(f"{path}: compiled for {about[key]}, this machine is {found}. Compile it here.")
    capability = torch.backends.cpu.get_cpu_capability()
    if "AVX512" in about.get("AOTI_CPU_ISA", "") and "AVX512" not in capability:
        raise ModelError(
            f"{path}: compiled for processors with AVX512, this one has {capability}. Compile it on this machine."
        )


def _accepted_input(path: str, text: str, device: str) -> AcceptedInput | None:
    """Return the input that the program checks for, from the text that it was compiled from; None if that is absent."""
    checks = {int(match[1]): match[2] for match in _CHECKED_INPUT.finditer(text)}
    if not checks:
        return None
    if len(checks) != 1:
        raise ModelError(f"{path}: takes {len(checks)} inputs, expected one: images (B, 3, H, W).")
    check = checks[0]
    smallest = {int(match[1]): int(match[2]) for match in _SMALLEST.finditer(check)}
    largest: dict[int, int] = {int(match[1]): int(match[2]) for match in _LARGEST.finditer(check)}
    fixed = {int(match[2]): int(match[1]) for match in _FIXED.finditer(check)}
    count = max({*smallest, *largest, *fixed}, default=-1) + 1
    sizes = tuple(
        (fixed.get(place, smallest.get(place, 1)), fixed.get(place, largest.get(place))) for place in range(count)
    )
    if len(sizes) != _IMAGES or sizes[1] != (3, 3):
        shape = " x ".join("?" if low != high else str(low) for low, high in sizes)
        raise ModelError(f"{path}: takes an input of shape {shape}, expected images (B, 3, H, W).")
    found = _DTYPE.search(check)
    dtype = getattr(torch, found[1]) if found else torch.float32
    return AcceptedInput(sizes, dtype, (device,))
