"""The options of an evaluation."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Literal, TypedDict, Unpack

__all__ = ["EvalFields", "EvalOptions", "choose_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How to run the model.

    `batch_size` and the precision (`amp` with `amp_dtype`) belong to the identity of a run: records of another batch
    size or precision are not reused. `device`, `torchcompile` and `channels_last` can change the last bits of scores,
    and so a prediction where two scores are nearly equal; the result lists them. The others change no prediction.

    Attributes:
        batch_size: Images per batch on each rank.
        threads: Decoding threads of a process; None means one for each core, divided between the processes of a node.
        device: Where the model runs; None means this rank's accelerator, or the CPU.
        amp: Run the model under autocast.
        amp_dtype: ``float16`` or ``bfloat16``.
        channels_last: Give the model channels-last memory.
        torchcompile: Compile the model with ``torch.compile``.
        on_error: ``raise``, or ``record``: count unreadable images as wrong, and give the best possible accuracy too.
        pixel_cache: Folder for transformed pixels, which the next evaluation reads instead of decoding; see `Loader`.
        timeout_s: How long a rank waits for the others, when the run starts and in each reduction, in seconds.
        save_every_s: Longest time in seconds that a finished batch waits to be saved, if the output is in an object
            store. A killed process loses the batches that wait.
    """

    batch_size: int = 256
    threads: int | None = None
    device: str | None = None
    amp: bool = False
    amp_dtype: str = "float16"
    channels_last: bool = False
    torchcompile: bool = False
    on_error: Literal["raise", "record"] = "raise"
    pixel_cache: str | None = None
    timeout_s: float = 1800.0
    save_every_s: float = 10.0

    def __post_init__(self) -> None:
        if self.amp_dtype not in ("float16", "bfloat16"):
            raise ValueError(f"amp_dtype is {self.amp_dtype!r}, expected float16 or bfloat16.")


class EvalFields(TypedDict, total=False):
    """The fields of `EvalOptions` as keyword arguments."""

    batch_size: int
    threads: int | None
    device: str | None
    amp: bool
    amp_dtype: str
    channels_last: bool
    torchcompile: bool
    on_error: Literal["raise", "record"]
    pixel_cache: str | None
    timeout_s: float
    save_every_s: float


def choose_options(options: EvalOptions | None, **given: Unpack[EvalFields]) -> EvalOptions:
    """Return the options, or those of the keyword arguments.

    Raises:
        TypeError: both are given, or an argument is no field of `EvalOptions`.
    """
    if options is not None and given:
        raise TypeError(f"{', '.join(given)} given beside options=. Give EvalOptions or keyword arguments, not both.")
    known = [field.name for field in fields(EvalOptions)]
    unknown = [name for name in given if name not in known]
    if unknown:
        similar = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Perhaps {similar[0]}?" if similar else f" Expected one of {', '.join(known)}."
        raise TypeError(f"evaluate takes no argument {unknown[0]!r}.{hint}")
    return options or EvalOptions(**given)
