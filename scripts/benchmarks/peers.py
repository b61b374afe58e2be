"""The rows of other loaders, which read the same bytes; each is used as its documentation recommends.

Worker processes stay from round to round (``persistent_workers``) and start before the first round, so that their start
is not timed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.data import read_bytes
from benchmarks.rows import Row, consume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized

    from numpy.typing import NDArray

    from benchmarks.data import Data, Location
    from benchmarks.rows import Settings

__all__ = ["DALI", "TORCHVISION_PIL", "TORCHVISION_V2", "WEBDATASET", "WEBDATASET_UNDECODED", "peer_rows"]

WEBDATASET = "webdataset + Pillow"
WEBDATASET_UNDECODED = "webdataset, undecoded"
TORCHVISION_PIL = "torchvision, Pillow"
TORCHVISION_V2 = "torchvision v2, tensors"
DALI = "DALI, CPU"
_RESIZE, _CROP = 256, 224


def peer_rows(data: Data, settings: Settings) -> list[Row]:
    """Return the peers' rows. Run them first: worker processes should be forked before threads are started."""
    return [
        _webdataset_row(data, settings),
        *(_torchvision_row(name, data, settings) for name in (TORCHVISION_PIL, TORCHVISION_V2)),
        Row(WEBDATASET_UNDECODED, lambda: consume(lambda: ([sample] for sample in _webdataset(data)))),
        _dali_row(data, settings),
    ]


def _webdataset(data: Data) -> Any:  # noqa: ANN401 -- webdataset has no types
    return webdataset.WebDataset(data.shards, shardshuffle=False)


def _webdataset_row(data: Data, settings: Settings) -> Row:
    pipeline = _webdataset(data).decode("pil").to_tuple("jpg", "json").map_tuple(_pillow_tensor, _original_label)
    loader = _torch_loader(pipeline, settings)
    return Row(WEBDATASET, lambda: consume(lambda: _images(loader)), pixels=_pillow_pixels)


def _pillow_pixels(jpeg: bytes) -> NDArray[np.uint8]:
    return _pillow_tensor(Image.open(io.BytesIO(jpeg), formats=["JPEG"])).numpy()


def _pillow_tensor(image: Image.Image) -> torch.Tensor:
    """Return the centre crop of the resized image, uint8 (H, W, 3), with the sizes that torchvision computes."""
    width, height = image.size
    scale = (_RESIZE, int(_RESIZE * height / width)) if width <= height else (int(_RESIZE * width / height), _RESIZE)
    left, top = (round((side - _CROP) / 2) for side in scale)
    resized = image.convert("RGB").resize(scale, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized.crop((left, top, left + _CROP, top + _CROP))))


def _original_label(label: dict[str, Any]) -> int:
    return int(label["original_label"])


def _torch_loader(dataset: Any, settings: Settings) -> DataLoader[Any]:  # noqa: ANN401 -- of either kind
    return DataLoader(dataset, batch_size=settings.batch_size, num_workers=settings.workers, persistent_workers=True)


def _images(loader: DataLoader[Any]) -> Iterator[torch.Tensor]:
    return (images for images, _ in loader)


def _torchvision_row(name: str, data: Data, settings: Settings) -> Row:
    if importlib.util.find_spec("torchvision") is None:
        return Row(name, None, "not installed")
    load = _torchvision_pillow() if name == TORCHVISION_PIL else _torchvision_tensors()
    loader = _torch_loader(_Images(data.locations, load), settings)

    def pixels(jpeg: bytes) -> NDArray[np.uint8]:
        return load(jpeg).permute(1, 2, 0).numpy()

    return Row(name, lambda: consume(lambda: _images(loader)), pixels=pixels)


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """The images of the shards, read without a check and without parsing tars: only torchvision's work is timed."""

    def __init__(self, locations: tuple[Location, ...], load: Callable[[bytes], torch.Tensor]) -> None:
        self._locations = locations
        self._load = load

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        return self._load(read_bytes(self._locations[position])), position


def _torchvision_pillow() -> Callable[[bytes], torch.Tensor]:
    transforms = importlib.import_module("torchvision.transforms")
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = (transforms.Resize(_RESIZE, bicubic), transforms.CenterCrop(_CROP), transforms.PILToTensor())
    return functools.partial(_through_pillow, transforms.Compose(steps))


def _through_pillow(transform: Any, jpeg: bytes) -> torch.Tensor:  # noqa: ANN401 -- torchvision has no types
    image: torch.Tensor = transform(Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB"))
    return image


def _torchvision_tensors() -> Callable[[bytes], torch.Tensor]:
    tv_io, v2 = (importlib.import_module(f"torchvision.{name}") for name in ("io", "transforms.v2"))
    steps = (v2.Resize(_RESIZE, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(_CROP))
    return functools.partial(_through_tensors, tv_io.decode_jpeg, tv_io.ImageReadMode.RGB, v2.Compose(steps))


def _through_tensors(decode: Any, mode: Any, transform: Any, jpeg: bytes) -> torch.Tensor:  # noqa: ANN401
    encoded = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
    image: torch.Tensor = transform(decode(encoded, mode=mode))
    return image


def _dali_row(data: Data, settings: Settings) -> Row:
    try:
        dali = importlib.import_module("nvidia.dali")
        fn, types = (importlib.import_module(f"nvidia.dali.{name}") for name in ("fn", "types"))
    except (ImportError, OSError):
        return Row(DALI, None, "not installed")

    @functools.cache  # its threads stay from round to round, as the worker processes do
    def pipeline() -> Any:  # noqa: ANN401 -- DALI has no static types
        made = dali.Pipeline(settings.batch_size, settings.workers, None, prefetch_queue_depth=2)
        with made:
            (encoded,) = fn.readers.webdataset(paths=data.shards, ext=["jpg", "json"])[:1]
            pixels = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
            pixels = fn.resize(pixels, mode="not_smaller", size=_RESIZE, interp_type=types.INTERP_CUBIC, antialias=True)
            made.set_outputs(fn.crop(pixels, crop=(_CROP, _CROP)))
        made.build()
        return made

    return Row(DALI, lambda: consume(lambda: _dali_batches(pipeline(), -(-len(data.locations) // settings.batch_size))))


def _dali_batches(pipeline: Any, steps: int) -> Iterator[Sized]:  # noqa: ANN401
    """Yield `steps` batches, prefetching none for the next round; the padded last batch counts as full."""
    prefetched = min(2, steps)
    for _ in range(prefetched):
        pipeline.schedule_run()
    for step in range(steps):
        (images,) = pipeline.share_outputs()
        yield images
        pipeline.release_outputs()
        if step + prefetched < steps:
            pipeline.schedule_run()
