"""OpenVINO models: the scores of the model, in float32; both files belong to it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from support.exported import MATRIX, expected_scores, save_openvino

from wds_real import EvalOptions, EvalTransform, ModelError, evaluate, load_model, open_dataset

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openvino", reason="needs pip install 'wds_real[openvino]'")

IMAGE = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((-1, 3, 32, 32), ""),
        ((2, 3, 32, 32), ""),
        ((8, 32, 32, 3), ""),
        ((-1, -1, -1, -1), "NHWC"),
        ((-1,) * 4, "NCHW"),
    ],
)
def test_the_scores_are_the_models(shape: tuple[int, ...], layout: str, tmp_path: Path) -> None:
    """Channels first or last, by size or by the layout in the file; any batch or a fixed one."""
    model = load_model(save_openvino(tmp_path / "m.xml", shape, layout=layout))
    scores = torch.from_numpy(expected_scores(IMAGE.numpy()))
    torch.testing.assert_close(model.module(IMAGE).double(), scores, rtol=0, atol=1e-5)
    assert model.transform == (EvalTransform() if layout else EvalTransform(32))


def test_both_files_belong_to_the_identity(packed: Path, tmp_path: Path) -> None:
    """The digests of the description and of the weights are in the result, with the version of the runtime."""
    model = load_model(save_openvino(tmp_path / "m.xml"))
    result = evaluate(model, open_dataset(packed), options=EvalOptions(batch_size=64, device="cpu"))
    assert result.model["sha256"] == hashlib.sha256((tmp_path / "m.xml").read_bytes()).hexdigest()
    assert result.model["weights_sha256"] == hashlib.sha256((tmp_path / "m.bin").read_bytes()).hexdigest()
    assert result.model["runtime"].startswith("openvino 20")
    assert result.model["provider"] == "CPU"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no bin", r"its weights, m\.bin, are not beside it"),
        ("short bin", r"openvino cannot load it: .*The \.bin file is cut, or belongs to another model"),
        ("cut", "openvino cannot load it: .*The file is cut"),
        ("text", "not XML, expected an OpenVINO model"),
        ("other xml", "openvino cannot load it"),
        ("empty", "the file is empty"),
        ("unclear", "does not say whether the 3 channels"),
    ],
)
def test_what_cannot_be_run_is_refused(change: str, message: str, tmp_path: Path) -> None:
    """The message names the file and the fault, in one line; readers of other formats are not tried."""
    path = tmp_path / "m.xml"
    save_openvino(path, (-1, -1, -1, -1) if change == "unclear" else (-1, 3, 32, 32), matrix=MATRIX)
    text = path.read_text()
    if change == "no bin":
        (tmp_path / "m.bin").unlink()
    elif change == "short bin":
        (tmp_path / "m.bin").write_bytes(b"1234")
    elif change != "unclear":
        others = {"cut": text[: len(text) // 2], "text": "hello", "other xml": "<?xml version='1.0'?><a/>", "empty": ""}
        path.write_text(others[change])
    with pytest.raises(ModelError, match=rf"m\.xml: .*{message}") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


RELEASED = """
import gc, signal, sys, threading
from wds_real import load_model

model = load_model(sys.argv[1])

def release():
    global model
    model = None
    gc.collect()

thread = threading.Thread(target=release)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda number, frame: print("terminated"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_after_a_model_is_gone_reaches_its_handler(tmp_path: Path) -> None:
    """The garbage collector may release a model on any thread; SIGTERM then still stops an evaluation as it should."""
    path = save_openvino(tmp_path / "m.xml")
    done = subprocess.run(
        [sys.executable, "-c", RELEASED, path], capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, done.stdout) == (0, "terminated\n"), done.stderr


def test_without_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"openvino is not installed .* pip install 'wds_real\[openvino\]'"):
        load_model(str(tmp_path / "m.xml"))
