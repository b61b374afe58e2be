"""TensorFlow Lite files: the scores of the model, from floats, pixels and quantised numbers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.exported import MATRIX, expected_scores
from support.tflite import save_tflite

from wds_real import EvalOptions, EvalTransform, ModelError, evaluate, load_model, open_dataset
from wds_real.evaluation.device import Normalize

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason="needs pip install 'wds_real[tflite]'")

PIXELS = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("batch", [-1, 1, 2, 8])
def test_the_scores_are_the_models(batch: int, tmp_path: Path) -> None:
    """Any batch or a fixed one: the scores are those of the matrix."""
    model = load_model(save_tflite(tmp_path / "m.tflite", (batch, 32, 32, 3)))
    image = PIXELS.float() / 255
    scores = torch.from_numpy(expected_scores(image.numpy()))
    for _ in range(2):  # the second call finds the input resized
        torch.testing.assert_close(model.module(image).double(), scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.module(image[:1]).double(), scores[:1], rtol=0, atol=1e-5)
    assert model.transform == EvalTransform(32)
    assert model.identity()["runtime"].startswith("ai-edge-litert ")


def test_plain_integers_are_pixels(packed: Path, tmp_path: Path) -> None:
    """An input of uint8 without scale gets pixels as they were decoded."""
    model = load_model(save_tflite(tmp_path / "m.tflite", dtype="uint8"))
    assert model.takes_pixels
    scores = torch.from_numpy(expected_scores(PIXELS.numpy()))
    torch.testing.assert_close(model.module(PIXELS).double(), scores, rtol=0, atol=1e-3)
    result = evaluate(model, open_dataset(packed), options=EvalOptions(batch_size=64, device="cpu"))
    assert "mean" not in result.preprocessing


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "shift"),
    [("uint8", 1 / 128, 127, 0), ("int8", 1 / 128, -1, 128), ("uint8", 1, 0, 0)],
)
def test_quantised_numbers_are_the_pixels_by_default(
    dtype: str, scale: float, zero_point: int, shift: int, tmp_path: Path
) -> None:
    """Mean and standard deviation follow from scale and zero point, such that each pixel is stored without rounding."""
    path = save_tflite(tmp_path / "m.tflite", dtype=dtype, scale=scale, zero_point=zero_point)
    model = load_model(path)
    assert model.transform.mean == ((zero_point + shift) / 255,) * 3
    assert model.transform.std == (1 / (255 * scale),) * 3
    normalize = Normalize(model.transform.mean, model.transform.std, device=torch.device("cpu"))
    real = (PIXELS.numpy().astype(np.float64) - shift - zero_point) * scale
    torch.testing.assert_close(
        model.module(normalize(PIXELS)).double(), torch.from_numpy(expected_scores(real)), rtol=1e-5, atol=1e-4
    )
    assert model.identity()["input"] == f"{dtype}, scale {scale:.9g}, zero point {zero_point}"


def test_another_normalisation_is_quantised_too(tmp_path: Path) -> None:
    """A model trained with a mean for each channel gets its numbers rounded to the grid of the file, and clipped."""
    model = load_model(save_tflite(tmp_path / "m.tflite", dtype="int8", scale=0.02, zero_point=10))
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0], image[:, 1], image[:, 2] = 0.51, -100.0, 100.0
    expected = expected_scores(image.numpy() * 0 + np.array([0.52, -2.76, 2.34]).reshape(1, 3, 1, 1))
    torch.testing.assert_close(model.module(image).double(), torch.from_numpy(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "is cut, or is no TensorFlow Lite model|cannot load it"),
        ("text", "bytes 4 to 8 are not TFL3"),
        ("empty", "the file is empty"),
        ("two inputs", r"takes 2 inputs \('image' .*'mask'"),
        ("grey", "expected 3 channels"),
    ],
)
def test_what_cannot_be_run_is_refused(change: str, message: str, tmp_path: Path) -> None:
    """The message names the file and the fault, in one line."""
    path = tmp_path / "m.tflite"
    save_tflite(path, (1, 32, 32, 1 if change == "grey" else 3), second_input=change == "two inputs")
    data = path.read_bytes()
    if change in ("cut", "text", "empty"):
        path.write_bytes({"cut": data[: len(data) // 2], "text": b"hello there" * 99, "empty": b""}[change])
    with pytest.raises(ModelError, match=rf"m\.tflite: .*({message})") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the runtime tells about its libraries is not passed on; later output is."""
    load_model(save_tflite(tmp_path / "m.tflite"))
    sys.stderr.write("after")
    sys.stderr.flush()
    assert capfd.readouterr().err == "after"


def test_without_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModelError, match=r"not installed .* pip install 'wds_real\[tflite\]'"):
        load_model(save_tflite(tmp_path / "m.tflite", matrix=MATRIX[:, :10]))
