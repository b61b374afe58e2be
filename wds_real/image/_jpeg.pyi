import numpy as np
from numpy.typing import NDArray

SLACK: int
VERSION: int

def decode_part(
    jpeg: bytes | memoryview, pixels: NDArray[np.uint8], width: int, height: int, left: int, top: int, /
) -> int: ...
