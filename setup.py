"""The two C extensions: optional, an installation without them gives the same pixels more slowly."""

import sysconfig

from setuptools import Extension, setup

STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")  # one build for Python 3.11 and later
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off"]  # fused multiply-adds would round differently from Pillow

setup(
    ext_modules=[
        Extension(  # needs a C compiler
            "wds_real.image._resample",
            ["wds_real/image/_resample.c"],
            extra_compile_args=FLAGS,
            py_limited_api=STABLE_ABI,
            optional=True,
        ),
        Extension(  # needs libjpeg-turbo and its headers too
            "wds_real.image._jpeg",
            ["wds_real/image/_jpeg.c"],
            libraries=["jpeg"],
            extra_compile_args=FLAGS,
            py_limited_api=STABLE_ABI,
            optional=True,
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
