import numpy as np
from numpy.typing import NDArray

def resize_crop(
    pixels: NDArray[np.uint8],
    out: NDArray[np.uint8],
    full: tuple[int, int],
    at: tuple[int, int],
    resized: tuple[int, int],
    start: tuple[int, int],
    filter_number: int,
    columns_first: bool,
    /,
) -> None: ...
def needed_box(
    full: tuple[int, int],
    resized: tuple[int, int],
    start: tuple[int, int],
    size: tuple[int, int],
    filter_number: int,
    /,
) -> tuple[int, int, int, int]: ...
