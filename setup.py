"""The one thing pyproject.toml does not say: the extension, which is built where there is a C compiler."""

import sysconfig

from setuptools import Extension, setup

STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")  # one build for Python 3.11 and later

setup(
    ext_modules=[
        Extension(
            "wds_real._resample",
            ["wds_real/_resample.c"],
            # Fused multiply-adds would round otherwise than Pillow.
            extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off"],
            py_limited_api=STABLE_ABI,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
