"""Models on the command line: the current folder hides nothing, and each wrong model or failing run is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, expect_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = """
import torch
from wds_real import EvalTransform

class Fixed(torch.nn.Module):
    def forward(self, image):
        if image.shape[2] != 32:
            raise AssertionError("expected 32 x 32")
        return torch.zeros(len(image), 1000)

def fixed(): return Fixed(), EvalTransform(32)
def classes(number):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, number))
def half(): return classes(1000).half()
def few(): return classes(10)
def hungry(): return lambda image: torch.empty(10**15)
def none(): return None
def raises(): raise ValueError("no checkpoint\\nhere")
"""
WRONG: dict[str, tuple[list[str], int, list[str]]] = {
    "other size": (["my_models:fixed", "--img-size", "48"], 1, ["3 x 48 x 48", "expected 32 x 32", "my_models.py:8"]),
    "other classes": (["my_models:few"], 2, ["has 10 outputs, expected 1000, one for each class"]),
    "memory": (["my_models:hungry"], 1, ["out of memory at batch 4: try -b 2"]),
    "returns none": (["my_models:none"], 2, ["returned None"]),
    "raises": (["my_models:raises"], 2, ["ValueError: no checkpoint here", "my_models.py:18"]),
    "no factory": (["my_models:absent"], 2, ["my_models.py", "'absent'"]),
    "no module": (["yours:make"], 2, ["'yours'"]),
    "empty": ([""], 2, ["empty"]),
    "colon": ([":"], 2, ["nothing"]),
    "no name": (["a:"], 2, ["nothing after the colon"]),
    "folder": (["shards"], 2, ["a folder"]),
    "control characters": (["a\x1b[2J\nerror: all is well"], 2, [r"\x1b[2J\nerror"]),
    "weights": (["model.pth"], 2, ["model.pth", "my_models:make"]),
    "huge batch": ([MODEL, "-b", "1000000000000"], 2, ["--batch-size", "1<=x<=65536"]),
    "huge images": ([MODEL, "--img-size", "10000000"], 2, ["expected 1 to 8,192 pixels"]),
}  # fmt: skip


def wds_real(*arguments: str) -> Ended:
    """Run wds-real as ``python -m`` does, in the working folder, without a PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "wds_real", *arguments],
        capture_output=True, text=True, timeout=300, check=False, env=environment,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("arguments", "code", "words"), WRONG.values(), ids=WRONG)
def test_a_model_that_fails_is_one_line(
    arguments: list[str], code: int, words: list[str], run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with the model, its name or its run, there is one line and the exit code of its kind."""
    Path("my_models.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    more = [] if "-b" in arguments else ["-b", "4"]
    expect_one_line(run("eval", "shards", "--device", "cpu", "-j", "1", *more, "-m", *arguments), code, *words)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("model", ["my_models:half", MODEL])
def test_files_in_the_current_folder_hide_no_packages(model: str) -> None:
    """A torch.py, json.py or signal.py beside the shards is not imported; my_models.py is, for its factory."""
    for name in ("torch", "json", "signal", "numpy", "click"):
        Path(f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    Path("my_models.py").write_text(MODELS)
    ended = wds_real("eval", "shards", "--device", "cpu", "--split", "validation[:8]", "-b", "4", "-m", model)
    assert (ended.code, "the wrong module" in ended.out + ended.err) == (0, False), ended.err
