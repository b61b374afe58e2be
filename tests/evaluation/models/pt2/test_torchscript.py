"""TorchScript programs: their scores, the same in every batch; and no program that uses files is loaded."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real import EvalOptions, ModelError, evaluate, load_model, open_dataset
from wds_real.evaluation.models.pt2.torchscript import TorchScript, is_torchscript

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated; the files stay


class Classifier(torch.nn.Module):
    """A convolution with parts named by numbers, pooling, and 1,000 scores."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
        self.head = torch.nn.Linear(4, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3)))  # type: ignore[no-any-return]


class OfTwo(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * mask


def save(path: Path, *, traced: bool = False, module: torch.nn.Module | None = None) -> torch.nn.Module:
    model = (module or Classifier()).eval()
    program = torch.jit.trace(model, torch.zeros(2, 3, 8, 8)) if traced else torch.jit.script(model)  # type: ignore[no-untyped-call]
    program.save(path)
    return model


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ts", "m.torchscript"])
def test_a_program_gives_the_scores_of_its_module(traced: bool, name: str, tmp_path: Path) -> None:
    """Traced or scripted, under each usual name; dropout is off, whatever mode it was saved in."""
    model = save(tmp_path / name, traced=traced)
    loaded, image = load_model(str(tmp_path / name)), torch.rand(5, 3, 8, 8)
    with torch.inference_mode():
        found = [loaded.module(image) for _ in range(4)]
        assert torch.allclose(found[0], model(image), atol=1e-6)
    assert all(torch.equal(scores, found[0]) for scores in found)
    assert set(loaded.identity()) == {"name", "sha256", "num_parameters", "weights_digest"}


def test_a_program_saved_in_training_mode_is_evaluated_without_dropout(tmp_path: Path) -> None:
    """As for a module: it is put into evaluation mode."""
    torch.jit.script(Classifier().train()).save(tmp_path / "m.pt")  # type: ignore[no-untyped-call]
    module = load_model(str(tmp_path / "m.pt")).module
    image = torch.rand(5, 3, 8, 8)
    assert torch.equal(module(image), module(image))


def test_a_frozen_program(packed: Path, tmp_path: Path) -> None:
    """One whose weights are constants is evaluated too, on float32 images."""
    frozen = torch.jit.freeze(torch.jit.script(Classifier().eval()))
    frozen.save(tmp_path / "m.pt")
    result = evaluate(load_model(str(tmp_path / "m.pt")), open_dataset(packed), options=EvalOptions(batch_size=64))
    assert result.coverage.seen_once == 120
    assert result.model["sha256"]


def test_compiling_it_is_refused(packed: Path, tmp_path: Path) -> None:
    """torch.compile takes no TorchScript: the option is refused before a batch is read."""
    save(tmp_path / "m.pt")
    options = EvalOptions(torchcompile=True, device="cpu")
    with pytest.raises(ModelError, match="--torchcompile compiles no TorchScript programs"):
        evaluate(load_model(str(tmp_path / "m.pt")), open_dataset(packed), options=options)


def test_weights_and_programs_are_told_apart_by_content(tmp_path: Path) -> None:
    """A state dict is no program, whatever its name; nor is what is no archive."""
    torch.save(Classifier().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("hello")
    save(tmp_path / "program.pth")
    found = {name: is_torchscript(str(tmp_path / name)) for name in ("weights.pt", "text.pt", "program.pth", "none.pt")}
    assert found == {"weights.pt": False, "text.pt": False, "program.pth": True, "none.pt": False}
    with pytest.raises(ModelError, match="weights"):
        load_model(str(tmp_path / "weights.pt"))


def edited(path: Path, line: str) -> Path:
    """Save a program, and put a line into its forward function."""
    save(path)
    data = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(data, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            text = content.decode("latin-1")
            if name.endswith(".py") and "    head = self.head" in text:
                start = text.index("    head = self.head")
                content = f"{text[:start]}    {line}\n{text[start:]}".encode()
            if not name.endswith(".debug_pkl"):
                other.writestr(name, content)
    path.write_bytes(data.getvalue())
    return path


WRITES = [  # each of these writes the file, if torch.jit.load alone is asked
    'torch.save(image, "FILE")',
    'ops.aten.save(image, "FILE")',
    't = torch\n    t.save(image, "FILE")',
    'f = torch.save\n    f(image, "FILE")',
    'torch.\\\n    save(image, "FILE")',
    'getattr(torch, "save")(image, "FILE")',
    'getattr(torch, "sa" "ve")(image, "FILE")',
    'getattr(torch, "\\163ave")(image, "FILE")',
    "getattr(torch, 'save')(image, \"FILE\")",
]
REFUSED = [
    *WRITES,
    'torch.from_file("FILE", False, 10)',
    "ops.c10d.barrier([image])",
    "o = ops",
    "c = __torch__.torch",
    "c = __torch__.torch.classes.c10d.Store",
]


@pytest.mark.parametrize("line", REFUSED)
def test_a_program_that_uses_files_or_other_libraries_is_refused(line: str, tmp_path: Path) -> None:
    """However it names the operator; nothing of the program has run then."""
    file = tmp_path / "written"
    path = edited(tmp_path / "m.pt", line.replace("FILE", str(file)))
    with pytest.raises(
        ModelError, match=r"m\.pt: refused, as its program has .* If you trust the file: --trust-code\."
    ):
        load_model(str(path))
    assert not file.exists()


@pytest.mark.parametrize("line", WRITES)
def test_the_refused_lines_would_write(line: str, tmp_path: Path) -> None:
    """The test above is no idle one: trusted, the same programs run, and most of them write the file."""
    file = tmp_path / "written"
    path = edited(tmp_path / "m.pt", line.replace("FILE", str(file)))
    try:
        load_model(str(path), trust_code=True).module(torch.rand(2, 3, 8, 8))
    except ModelError:  # torch itself does not take this spelling
        assert not file.exists()
        assert line in WRITES[-3:]
    else:
        assert file.exists()


@pytest.mark.parametrize("kind", ["cut", "other", "no forward", "two inputs"])
def test_what_is_no_whole_program_is_refused(kind: str, tmp_path: Path) -> None:
    """A ModelError of one line."""
    path = tmp_path / "m.ts"
    save(path, module=OfTwo() if kind == "two inputs" else None)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "other":
        path.write_bytes(b"other" * 99)
    elif kind == "no forward":
        torch.jit.script(torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(2))])).save(path)  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=r"m\.ts: ") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_loading_gives_no_warning(tmp_path: Path) -> None:
    """That torch.jit is deprecated is not news to the owner of the file."""
    save(tmp_path / "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(load_model(str(tmp_path / "m.pt")).module, TorchScript)
