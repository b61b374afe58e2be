"""Packages of AOTInductor: refused unless trusted, and limited to the inputs that they were compiled for."""

from __future__ import annotations

import re
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import EvalOptions, EvalTransform, ModelError, evaluate, load_model, open_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from wds_real.evaluation.models.base import LoadedModel

pytestmark = [
    pytest.mark.slow,  # compiling takes minutes on a busy machine
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling a package needs g++"),
    pytest.mark.filterwarnings("ignore"),  # of torch's compiler, which makes the packages
]


class MeanColour(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image.mean((2, 3)))  # type: ignore[no-any-return]


def compile_package(path: Path, batch: torch.export.Dim | None = None) -> MeanColour:
    torch.manual_seed(3)
    model, image = MeanColour().eval(), torch.rand(8, 3, 16, 16)
    program = torch.export.export(model, (image,), dynamic_shapes=None if batch is None else ({0: batch},))
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return model


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeanColour]:
    """A package for batches of 8. Read only."""
    path = tmp_path_factory.mktemp("aoti") / "fixed.pt2"
    return path, compile_package(path)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MeanColour]:
    """A package for batches of 2 to 64. Read only."""
    path = tmp_path_factory.mktemp("aoti") / "dynamic.pt2"
    return path, compile_package(path, torch.export.Dim("b", min=2, max=64))


def trusted(path: Path) -> LoadedModel:
    return load_model(str(path), trust_code=True)


def test_it_is_told_apart_by_content_and_refused(fixed: tuple[Path, MeanColour]) -> None:
    """The message says that it is machine code, and the option that runs it."""
    with pytest.raises(ModelError, match=r"AOTInductor, which is compiled machine code .* --trust-code\.$"):
        load_model(str(fixed[0]))


def test_it_gives_the_scores_of_its_module(fixed: tuple[Path, MeanColour]) -> None:
    """And its facts name the file and what runs it."""
    path, module = fixed
    image = torch.rand(8, 3, 16, 16)
    loaded = trusted(path)
    with torch.inference_mode():
        assert torch.allclose(loaded.module(image), module(image), atol=1e-5)
    assert set(loaded.identity()) == {"name", "sha256", "runtime"}
    assert loaded.identity()["runtime"] == f"AOTInductor {torch.__version__}"


@pytest.mark.parametrize(
    ("which", "size", "img_size", "message"),
    [
        ("fixed", 4, 16, "exported for batches of 8, not 4: -b 8."),
        ("fixed", 16, 16, "exported for batches of 8, not 16: -b 8."),
        ("fixed", 8, 32, "exported for images of height 16 and width 16, not 32 x 32: --img-size 16."),
        ("dynamic", 1, 16, "exported for batches of 2 to 64, not 1: -b 2."),
        ("dynamic", 65, 16, "exported for batches of 2 to 64, not 65: -b 64."),
    ],
)
def test_inputs_that_it_was_not_compiled_for_are_refused(
    which: str, size: int, img_size: int, message: str, packed: Path, request: pytest.FixtureRequest
) -> None:
    """Its code would read beyond the batch and give numbers all the same; the option to set is named instead."""
    path, _ = request.getfixturevalue(which)
    options = EvalOptions(batch_size=size, device="cpu")
    with pytest.raises(ModelError, match=f"{re.escape(message)}$"):
        evaluate(trusted(path), open_dataset(packed), transform=EvalTransform(img_size), options=options)


@pytest.mark.parametrize("which", ["fixed", "dynamic"])
def test_it_is_evaluated(which: str, packed: Path, request: pytest.FixtureRequest) -> None:
    """Every image once; the last batch is padded to the size that it takes."""
    path, _ = request.getfixturevalue(which)
    result = evaluate(trusted(path), open_dataset(packed), options=EvalOptions(batch_size=8, device="cpu"))
    assert result.coverage.seen_once == 120
    assert result.model["sha256"]


def test_without_its_source_the_code_checks_its_inputs(fixed: tuple[Path, MeanColour], tmp_path: Path) -> None:
    """The limits are read from the text in the package; where that was removed, a wrong batch is still an error."""
    path = repacked(fixed[0], tmp_path / "bare.pt2", without=".cpp")
    loaded = trusted(path)
    assert loaded.accepts is None
    with pytest.raises(RuntimeError, match="expected: 8"):
        loaded.module(torch.rand(4, 3, 16, 16))


def repacked(path: Path, other: Path, *, without: str) -> Path:
    """Copy a package without some of its files."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as copy:
        for name in archive.namelist():
            if not name.endswith(without):
                copy.writestr(name, archive.read(name))
    return other


def test_another_device_is_refused(fixed: tuple[Path, MeanColour], packed: Path) -> None:
    """A package for CUDA does not run on the CPU: the device that it needs is named."""
    loaded = trusted(fixed[0])
    assert loaded.accepts is not None
    assert loaded.accepts.devices == ("cpu",)
    with pytest.raises(ModelError, match=r"runs on cpu here, not on meta: --device cpu\."):
        evaluate(loaded, open_dataset(packed), options=EvalOptions(batch_size=8, device="meta"))
