import numpy as np
from numpy.typing import NDArray

SLACK: int

def decode_crop(
    jpeg: bytes | memoryview, pixels: NDArray[np.uint8], width: int, height: int, left: int, top: int, to_end: bool, /
) -> int: ...
def warning(jpeg: bytes | memoryview, most_pixels: int, /) -> str | None: ...
