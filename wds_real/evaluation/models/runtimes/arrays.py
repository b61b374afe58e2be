"""What the modules of runtimes share: the input for images, the output with scores, and the call on NumPy arrays."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wds_real.errors import ModelError, ModelRunError
from wds_real.evaluation.failures import is_out_of_memory
from wds_real.evaluation.models.base import AcceptedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]

__all__ = ["ArrayModel", "ImageInput", "Port", "find_image_input", "find_scores", "loading"]

_CHANNELS = 3
_MAX_TOLD = 200
_PLACES = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .*? failed: ?"),
    re.compile(r"^/\S+\.(h|cc):\d+ .*?\) (?=[A-Z])"),
)
_WRAP = "or run it in a function of yours: -m my_models:make"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64, "uint8": torch.uint8}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the file of a model declares it.

    Attributes:
        name: In the file.
        shape: The size of each dimension, None where the file leaves it open; None if it does not even say how many.
        dtype: NumPy's name, or the runtime's own where NumPy has none.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str

    def __str__(self) -> str:
        shape = "?" if self.shape is None else "x".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} ({shape or 'a single number'}, {self.dtype})"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input that takes the images.

    Attributes:
        name: In the file.
        channels_last: Whether it is (B, H, W, 3) rather than (B, 3, H, W).
        batch_size: The only batch size that the model takes; None if it takes any.
        size: Height and width; None where the model takes any.
        dtype: What the model takes.
    """

    name: str
    channels_last: bool
    batch_size: int | None
    size: tuple[int | None, int | None]
    dtype: torch.dtype

    def accepts(self, devices: tuple[str, ...]) -> AcceptedInput:
        """Return what can be given to an `ArrayModel` of this input: batches of any size."""
        sizes = ((1, size) if size is None else (size, size) for size in self.size)
        return AcceptedInput(((1, None), (_CHANNELS, _CHANNELS), *sizes), self.dtype, devices)


def find_image_input(path: str, ports: Sequence[Port], *, layout: str = "") -> ImageInput:
    """Return the one input of a model, which must be images.

    Args:
        path: The file, for messages.
        ports: Its inputs.
        layout: ``NCHW`` or ``NHWC`` if the file names it; else the place of the 3 channels in the shape decides.

    Raises:
        ModelError: it has several inputs or none, the input is no batch of RGB images or of another dtype, or it does
            not say where the channels are.
    """
    if len(ports) != 1:
        names = f" ({', '.join(map(str, ports))})" if ports else ""
        raise ModelError(
            f"{path}: takes {len(ports)} inputs{names}, expected one: images. Save it with the images as its only "
            f"input, {_WRAP}."
        )
    port = ports[0]
    if port.shape is None or len(port.shape) != 4:
        raise ModelError(
            f"{path}: its input is {port}, expected images, B x 3 x H x W or B x H x W x 3. Save a model that takes "
            f"images, {_WRAP}."
        )
    if port.dtype not in _DTYPES:
        raise ModelError(
            f"{path}: its input is {port}, expected float32, float16, float64, or uint8 for pixels. Convert the input, "
            f"{_WRAP}."
        )
    channels_last = _channels_last(path, port, layout)
    batch, *rest = port.shape
    height, width = rest[:2] if channels_last else rest[1:]
    return ImageInput(port.name, channels_last, batch, (height, width), _DTYPES[port.dtype])


def _channels_last(path: str, port: Port, layout: str) -> bool:
    """Return whether the channels are the last dimension, from the declared layout or the sizes."""
    _, first, _, last = port.shape or ()
    if layout in ("NCHW", "NHWC"):
        channels = last if layout == "NHWC" else first
        if channels not in (_CHANNELS, None):
            raise ModelError(
                f"{path}: its input is {port} in layout {layout}, expected 3 channels, RGB. Save a "
                f"model of colour images, {_WRAP}."
            )
        return layout == "NHWC"
    if (first == _CHANNELS) != (last == _CHANNELS):
        return last == _CHANNELS
    if first == last == _CHANNELS or None in (first, last):
        raise ModelError(
            f"{path}: its input is {port}, which does not say whether the 3 channels are the second dimension or the "
            f"last. Save it with the sizes of the image fixed, such as 1x3x224x224, {_WRAP}."
        )
    raise ModelError(
        f"{path}: its input is {port}, expected 3 channels, RGB, as the second dimension or the last. Save a model of "
        f"colour images, {_WRAP}."
    )


def find_scores(path: str, ports: Sequence[Port]) -> int:
    """Return which output has the scores: the only one, the one called logits, or the only one of shape (B, K).

    Raises:
        ModelError: none or several outputs can be the scores, or they are no numbers.
    """
    tables = [
        place
        for place, port in enumerate(ports)
        if port.shape is not None and len(port.shape) == 2 and port.dtype.startswith("float")
    ]
    named = [place for place, port in enumerate(ports) if port.name == "logits"]
    found = [0] if len(ports) == 1 else named or tables
    if len(found) != 1:
        names = ", ".join(map(str, ports)) or "none"
        raise ModelError(
            f"{path}: which output has the scores is not clear, of {names}. Name it logits, or save the model with the "
            f"scores as its only output, {_WRAP}."
        )
    port = ports[found[0]]
    if not port.dtype.startswith(("float", "int", "uint")):
        raise ModelError(f"{path}: its output is {port}, expected scores, B x 1000. Save it with the scores, {_WRAP}.")
    return found[0]


@dataclass(frozen=True, slots=True)
class ArrayModel:
    """A model that takes images (B, 3, H, W) as a tensor, and runs on arrays.

    A model of a fixed batch size gets its batches one after the other, the last one filled up with its own last image.

    Attributes:
        image: The input.
        run: From an array of the input's layout to the array of scores, one row for each image.
    """

    image: ImageInput
    run: Callable[[Array], Array]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores on the device of `image`."""
        pixels = image.movedim(1, -1) if self.image.channels_last else image
        array = np.ascontiguousarray(pixels.cpu().numpy())
        size = self.image.batch_size or len(array)
        scores = [self._run(array[start : start + size], size) for start in range(0, len(array), size)]
        return torch.from_numpy(np.concatenate(scores)).to(image.device)

    def _run(self, array: Array, size: int) -> Array:
        missing = size - len(array)
        filled = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
        scores = self.run(filled)
        if scores.ndim > 2 and scores.shape[2:] == (1,) * (scores.ndim - 2):  # pooled, but not flattened: SqueezeNet
            scores = scores.reshape(scores.shape[:2])
        if scores.ndim == 0 or len(scores) != size:
            shape = " x ".join(map(str, scores.shape)) or "a single number"
            raise ModelError(f"given {size} images, the model returned {shape}, expected one row for each image.")
        if scores.ndim == 2 and scores.dtype.kind in "iu":  # scores that were not converted back, not classes
            scores = scores.astype(np.float32)
        return np.array(scores[: len(array)])  # a copy: some runtimes reuse the memory of their outputs


@contextmanager
def loading(path: str, runtime: str, hints: Mapping[str, str]) -> Iterator[None]:
    """Turn what a runtime raises while it loads a file into a `ModelError` of one line.

    Args:
        path: The file.
        runtime: Its name, for the message.
        hints: Advice by a part of the message; the one for "" is the default.

    Raises:
        ModelError: the runtime raised something.
        ModelRunError: memory ran out.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # runtimes have errors of their own, below Exception
        if is_out_of_memory(error):
            raise ModelRunError(f"{path}: out of memory while it was loaded.") from error
        text = str(error)
        hint = next(hint for part, hint in hints.items() if part in text)
        raise ModelError(f"{path}: {runtime} cannot load it: {_told(text)}. {hint}") from error


def _told(text: str) -> str:
    """Return the last line of a runtime's message, without places in the runtime's code."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
    for part in _PLACES:
        last = part.sub("", last)
    last = " ".join(last.split()).rstrip(".!")
    return last if len(last) <= _MAX_TOLD else f"{last[: _MAX_TOLD - 3]}..."
