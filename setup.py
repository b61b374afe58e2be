"""The two C extensions: optional, an installation without them gives the same pixels more slowly.

WDS_REAL_LIBJPEG_TURBO=PREFIX, which scripts/release sets, puts a static libjpeg-turbo into the extension: PREFIX has
include/jpeglib.h and lib/libjpeg.a. The extension then needs no library of the machine, and is obligatory.
"""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")  # one build for Python 3.11 and later
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off"]  # fused multiply-adds would round differently from Pillow


def libjpeg_turbo(prefix: str | None) -> dict[str, Any]:
    """Return how the decoder is linked: against the machine's library, or with the static one below `prefix`."""
    if not prefix:
        return {"libraries": ["jpeg"]}
    folder = Path(prefix).resolve()
    archive, include = folder / "lib" / "libjpeg.a", folder / "include"
    for path in (archive, include / "jpeglib.h"):
        if not path.is_file():
            sys.exit(
                f"WDS_REAL_LIBJPEG_TURBO: {path} is missing. Give the folder into which libjpeg-turbo was installed, "
                "with include/jpeglib.h and lib/libjpeg.a, or unset the variable to link the machine's library."
            )
    hidden = ["-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else []  # another libjpeg of the process stays apart
    return {"include_dirs": [str(include)], "extra_objects": [str(archive)], "extra_link_args": hidden}


PREFIX = os.environ.get("WDS_REAL_LIBJPEG_TURBO")

setup(
    ext_modules=[
        Extension(  # needs a C compiler
            "wds_real.image._resample",
            ["wds_real/image/_resample.c"],
            extra_compile_args=FLAGS,
            py_limited_api=STABLE_ABI,
            optional=not PREFIX,
        ),
        Extension(  # needs libjpeg-turbo and its headers too
            "wds_real.image._jpeg",
            ["wds_real/image/_jpeg.c"],
            extra_compile_args=FLAGS,
            py_limited_api=STABLE_ABI,
            optional=not PREFIX,
            **libjpeg_turbo(PREFIX),
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
