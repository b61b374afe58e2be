"""The evaluation loop: model, data set and transform in, `Result` out."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from wds_real.decode import IMAGENET_MEAN, IMAGENET_STD, EvalTransform
from wds_real.distributed import current_world, process_group
from wds_real.loader import Loader
from wds_real.metrics import RealAccuracy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wds_real.dataset import Dataset
    from wds_real.loader import Batch
    from wds_real.result import Result

__all__ = ["EvalOptions", "Normalize", "default_device", "evaluate", "versions"]

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How to run, none of which changes what is counted.

    Attributes:
        batch_size: Samples a batch, on each rank.
        threads: Decoding threads a process; None means one a core, shared between the processes of a node.
        device: Where the model runs; None means this rank's accelerator, or the CPU.
        amp: Run the model under autocast.
        amp_dtype: ``float16`` or ``bfloat16``.
        channels_last: Give the model channels-last memory.
        torchcompile: Compile the model with ``torch.compile``.
        on_error: ``raise``, or ``record``: count unreadable samples and bound the accuracy.
    """

    batch_size: int = 256
    threads: int | None = None
    device: str | None = None
    amp: bool = False
    amp_dtype: str = "float16"
    channels_last: bool = False
    torchcompile: bool = False
    on_error: Literal["raise", "record"] = "raise"


class Normalize:
    """uint8 pixels to a model's input: ``(x / 255 - mean) / std``, float32, on the pixels' device.

    A custom transform that gives floating-point images has normalised them itself: these pass unchanged.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, device: torch.device) -> None:
        # In 64 bits first, so that 127 / 255 * 255 is 127 in float32.
        scale = torch.tensor([255.0], dtype=torch.float64)
        self._mean = (torch.tensor(mean, dtype=torch.float64) * scale).float().view(1, -1, 1, 1).to(device)
        self._std = (torch.tensor(std, dtype=torch.float64) * scale).float().view(1, -1, 1, 1).to(device)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return float (B, 3, H, W)."""
        if image.is_floating_point():
            return image
        return image.float().sub_(self._mean).div_(self._std)


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    transform: EvalTransform | Callable[[Any], Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    options: EvalOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Evaluate `model` on each sample of `dataset` exactly once, on this process or with all ranks of a launch.

    Args:
        model: Takes float (B, 3, H, W), returns scores (B, 1000).
        dataset: From `wds_real.open_dataset`.
        transform: As for `Loader`.
        mean: Per channel, of values in 0..1; None means the transform's.
        std: As `mean`.
        options: How to run.
        progress: Called after each batch with the number of samples of this rank it held.

    Raises:
        CoverageError: a sample was missed or counted twice.
        ShardError: a sample is damaged.
        ModelError: the model does not return (B, 1000) finite scores.
    """
    options = options or EvalOptions()
    transform = EvalTransform() if transform is None else transform
    if isinstance(transform, EvalTransform):
        mean, std = mean or transform.mean, std or transform.std
    mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    device = default_device() if options.device is None else torch.device(options.device)
    with process_group(device), torch.inference_mode():
        loader = Loader(
            dataset,
            batch_size=options.batch_size,
            transform=transform,
            threads=options.threads,
            on_error=options.on_error,
        )
        forward = _prepared(model, Normalize(mean, std, device=device), device, options)
        metric = RealAccuracy(dataset)
        watch = _Watch()
        for batch in watch.waiting_for(loader):
            metric.update(forward(batch.image), batch)
            if progress is not None:
                progress(int(batch.valid.sum()))
        result = metric.compute()
    return replace(
        result,
        preprocessing={**_describe(transform), "mean": list(mean), "std": list(std)},
        run={
            "options": asdict(options),
            "device": _device_name(device),
            "threads": loader.threads,
            "timings": watch.timings(result.coverage.expected),
            "versions": versions(),
        },
    )


def default_device() -> torch.device:
    """Return this rank's accelerator, or the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, current_world().local_rank)


def versions() -> dict[str, str]:
    """Return the versions of what can change a result."""
    names = ("wds_real", "torch", "numpy", "pillow", "simplejpeg")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _prepared(model: Model, normalize: Normalize, device: torch.device, options: EvalOptions) -> Model:
    """Return a function from a batch's image on the host to scores."""
    if isinstance(model, torch.nn.Module):
        model = _in_eval_mode(model).to(device)
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    if options.torchcompile:
        model = torch.compile(model)
    memory_format = torch.channels_last if options.channels_last else torch.contiguous_format
    amp_dtype = getattr(torch, options.amp_dtype)

    def forward(image: torch.Tensor) -> torch.Tensor:
        pixels = normalize(image.to(device, non_blocking=True)).contiguous(memory_format=memory_format)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=options.amp):
            scores = model(pixels)
        return scores.float() if scores.is_floating_point() else scores

    return forward


def _in_eval_mode(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return model.eval()
    except NotImplementedError:  # a module from torch.export was fixed in its mode when it was exported
        return model


class _Watch:
    """Measures where the loop's time goes."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0

    def waiting_for(self, loader: Loader) -> Iterator[Batch]:
        """Yield the batches, adding up how long each took to come."""
        asked = time.perf_counter()
        for batch in loader:
            self._waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def timings(self, num_samples: int) -> dict[str, float]:
        """Return seconds in all, seconds spent waiting for data on this rank, and the rate of all ranks together."""
        total = time.perf_counter() - self._started
        return {
            "total_s": round(total, 3),
            "waited_for_data_s": round(self._waited, 3),
            "images_per_s": round(num_samples / total, 1),
        }


def _describe(transform: EvalTransform | Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(transform, EvalTransform):
        return transform.describe()
    return {"name": getattr(transform, "__qualname__", None) or repr(transform)}


def _device_name(device: torch.device) -> str:
    return platform.machine() if device.type == "cpu" else str(device)
