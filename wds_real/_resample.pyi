import numpy as np
from numpy.typing import NDArray

def resize_crop(
    pixels: NDArray[np.uint8],
    out: NDArray[np.uint8],
    resized_width: int,
    resized_height: int,
    left: int,
    top: int,
    filter_number: int,
    columns_first: bool,
    /,
) -> None: ...
