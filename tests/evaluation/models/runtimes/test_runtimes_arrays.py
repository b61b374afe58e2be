"""What the runtimes of arrays share: the input of images, the output of scores, batches of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wds_real import EvalTransform, ModelError
from wds_real.errors import ModelRunError
from wds_real.evaluation.models.runtimes.arrays import (
    ArrayModel,
    ImageInput,
    Port,
    find_image_input,
    find_scores,
    loading,
)

if TYPE_CHECKING:
    import numpy.typing as npt

ANY_SIZE = (None, None)


@pytest.mark.parametrize(
    ("shape", "channels_last", "batch_size", "size"),
    [
        ((None, 3, 224, 224), False, None, (224, 224)),
        ((1, 3, 224, 192), False, 1, (224, 192)),
        ((8, 224, 224, 3), True, 8, (224, 224)),
        ((None, None, None, 3), True, None, ANY_SIZE),
        ((None, 3, None, None), False, None, ANY_SIZE),
        ((None, 3, 3, 4), False, None, (3, 4)),
    ],
)
def test_the_place_of_the_three_channels_is_the_layout(
    shape: tuple[int | None, ...], channels_last: bool, batch_size: int | None, size: tuple[int | None, int | None]
) -> None:
    """Where one of the two places is 3, it has the channels; the sizes are read in that order."""
    found = find_image_input("m.onnx", [Port("x", shape, "float32")])
    assert found == ImageInput("x", channels_last, batch_size, size, torch.float32)


@pytest.mark.parametrize(
    ("shape", "layout", "channels_last"),
    [((1, None, None, None), "NHWC", True), ((1, 3, 224, 3), "NCHW", False), ((1, 3, 3, 3), "NHWC", True)],
)
def test_a_declared_layout_decides(shape: tuple[int | None, ...], layout: str, channels_last: bool) -> None:
    """A layout that the file names is used, also where the sizes would not tell."""
    assert find_image_input("m", [Port("x", shape, "float32")], layout=layout).channels_last is channels_last


@pytest.mark.parametrize(
    ("ports", "layout", "message"),
    [
        ([], "", "takes 0 inputs, expected one: images"),
        (
            [Port("a", (1, 3, 8, 8), "float32"), Port("b", (1,), "int64")],
            "",
            r"2 inputs \('a' \(1x3x8x8, float32\), 'b' \(1, int64\)\)",
        ),
        ([Port("x", (1, 1000), "float32")], "", r"'x' \(1x1000, float32\), expected images, B x 3 x H x W"),
        ([Port("x", None, "float32")], "", r"'x' \(\?, float32\), expected images"),
        ([Port("x", (1, 3, 8, 3), "float32")], "", "does not say whether the 3 channels .* Save it with the sizes"),
        ([Port("x", (None,) * 4, "float32")], "", "does not say whether the 3 channels"),
        ([Port("x", (1, 1, 28, 28), "float32")], "", "expected 3 channels, RGB"),
        ([Port("x", (1, 4, 8, 8), "float32")], "NCHW", "in layout NCHW, expected 3 channels"),
        ([Port("x", (1, 3, 8, 8), "string")], "", r"string\), expected float32, float16, float64, or uint8 for pixels"),
        ([Port("x", (1, 3, 8, 8), "int8")], "", r"int8\), expected float32"),
    ],
)
def test_what_is_no_input_of_images_is_refused(ports: list[Port], layout: str, message: str) -> None:
    """The message shows the inputs and says what to do; an unclear layout is not guessed."""
    with pytest.raises(ModelError, match=rf"^m\.onnx: .*{message}.*-m my_models:make\.$"):
        find_image_input("m.onnx", ports, layout=layout)


SCORES, FEATURES, MAP = (
    Port("s", (1, 1000), "float32"),
    Port("f", (1, 64), "float32"),
    Port("m", (1, 8, 7, 7), "float32"),
)


@pytest.mark.parametrize(
    ("ports", "place"),
    [
        ([SCORES], 0),
        ([MAP], 0),
        ([Port("classes", (None,), "int64")], 0),
        ([MAP, SCORES], 1),
        ([FEATURES, MAP, Port("logits", (1, 1000), "float16")], 2),
        ([Port("label", (1,), "int64"), SCORES], 1),
    ],
)
def test_the_output_of_scores(ports: list[Port], place: int) -> None:
    """It is the only output, the one called logits, or the only one of shape (B, K)."""
    assert find_scores("m.onnx", ports) == place


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ([], "of none"),
        ([SCORES, FEATURES], r"'s' \(1x1000, float32\), 'f' \(1x64, float32\)\. Name it logits"),
        ([MAP, MAP], "which output has the scores is not clear"),
        ([Port("text", (1,), "string")], r"'text' \(1, string\), expected scores"),
    ],
)
def test_outputs_that_do_not_tell_are_named_and_refused(ports: list[Port], message: str) -> None:
    """No output is guessed among several."""
    with pytest.raises(ModelError, match=message):
        find_scores("m.onnx", ports)


def sums(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Score each image by its own sum; the width is that of the images."""
    found: npt.NDArray[Any] = array.reshape(len(array), -1).sum(axis=1, keepdims=True)
    return found


def image_input(*, batch_size: int | None = None, channels_last: bool = False) -> ImageInput:
    return ImageInput("x", channels_last, batch_size, (4, 5), torch.float32)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 7, 8, 100])
def test_any_batch_size_gives_the_same_scores(batch_size: int | None) -> None:
    """A model of a fixed batch size sees only batches of that size, and padding does not show in the scores."""
    seen = []

    def run(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        seen.append(len(array))
        return sums(array)

    image = torch.arange(7 * 3 * 4 * 5, dtype=torch.float32).view(7, 3, 4, 5)
    scores = ArrayModel(image_input(batch_size=batch_size), run)(image)
    assert torch.equal(scores, image.flatten(1).sum(1, keepdim=True))
    assert set(seen) == {batch_size or 7}
    assert len(seen) == -(-7 // (batch_size or 7))


def test_channels_last_models_get_the_channels_last() -> None:
    """The array has the shape of the layout, in contiguous memory."""

    def run(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        assert array.shape == (2, 4, 5, 3)
        assert array.flags["C_CONTIGUOUS"]
        return array[:, 0, 0, :]

    image = torch.rand(2, 3, 4, 5)
    assert torch.equal(ArrayModel(image_input(channels_last=True), run)(image), image[:, :, 0, 0])


def test_scores_are_a_copy() -> None:
    """A runtime that reuses the memory of its output does not change earlier scores."""
    memory = np.zeros((2, 4), dtype=np.float32)

    def run(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        memory[:] = array[0, 0, 0, 0]
        return memory

    model = ArrayModel(image_input(), run)
    first = model(torch.ones(2, 3, 4, 5))
    model(torch.zeros(2, 3, 4, 5))
    assert torch.equal(first, torch.ones(2, 4))


def test_pooled_scores_lose_their_dimensions_of_one() -> None:
    """(B, K, 1, 1), as of SqueezeNet, is (B, K); other shapes stay, and are refused later with their shape."""
    image = torch.zeros(2, 3, 4, 5)
    shapes = {(2, 7, 1, 1): (2, 7), (2, 7, 2, 2): (2, 7, 2, 2), (2,): (2,)}
    for given, found in shapes.items():
        assert ArrayModel(image_input(), lambda _, given=given: np.zeros(given))(image).shape == found  # type: ignore[misc]


def test_integers_in_a_table_are_scores_and_in_a_list_classes() -> None:
    """Quantised scores become floats; a list of integers is answers, and stays one."""
    image = torch.zeros(2, 3, 4, 5)
    table = ArrayModel(image_input(), lambda _: np.zeros((2, 7), dtype=np.uint8))(image)
    assert table.dtype == torch.float32
    assert ArrayModel(image_input(), lambda _: np.zeros(2, dtype=np.int64))(image).dtype == torch.int64


@pytest.mark.parametrize("shape", [(), (1, 1000), (3, 1000)])
def test_another_number_of_rows_is_refused(shape: tuple[int, ...]) -> None:
    """A model that was exported for another batch may return any number of rows: none of them is used."""
    with pytest.raises(ModelError, match=r"given 2 images, the model returned .*expected one row for each image"):
        ArrayModel(image_input(), lambda _: np.zeros(shape))(torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("size", "transform"),
    [((288, 288), EvalTransform(288)), ((192, 256), EvalTransform((192, 256))), ((None, 224), EvalTransform())],
)
def test_the_default_preprocessing_has_the_size_of_the_input(
    size: tuple[int | None, int | None], transform: EvalTransform
) -> None:
    """Where it is fixed; else it is the default's."""
    image = ImageInput("x", False, None, size, torch.float32)
    assert image.accepts(("cpu",)).transform() == transform


def test_the_accepted_sizes_are_in_the_order_of_batches() -> None:
    """Batches are (B, 3, H, W) for every layout, of any number of images."""
    accepted = image_input(batch_size=4, channels_last=True).accepts(("cpu",))
    accepted.check("m.onnx", (100, 3, 4, 5))
    with pytest.raises(ModelError, match="height 4 and width 5, not 5 x 5"):
        accepted.check("m.onnx", (100, 3, 5, 5))
    assert accepted.devices == ("cpu",)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from a.onnx failed:Parsing failed.", "Parsing failed"),
        ("/src/onnx/graph.h:46 void onnx::f(const X&, int) ONNX Runtime only knows 5.", "ONNX Runtime only knows 5"),
        (
            "Exception from core.cpp:84:\nCheck failed at x.cpp:9:\nStart-end tags mismatch!\n\n",
            "Start-end tags mismatch",
        ),
        ("", "no reason given"),
        ("x" * 1000, "x" * 197 + "..."),
    ],
)
def test_what_a_runtime_raises_is_one_line(raised: str, told: str) -> None:
    """The reason is kept, places in the runtime's source are not; the hint says what to do."""
    with pytest.raises(ModelError) as caught, loading("a.onnx", "onnxruntime", {"": "Export it again."}):
        raise RuntimeError(raised)
    assert str(caught.value) == f"a.onnx: onnxruntime cannot load it: {told}. Export it again."


def test_memory_that_runs_out_is_told_apart() -> None:
    """It is no fault of the file: exit code 1."""
    with pytest.raises(ModelRunError, match="out of memory while it was loaded"), loading("a.onnx", "x", {"": ""}):
        raise MemoryError
