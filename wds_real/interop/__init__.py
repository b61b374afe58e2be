"""The data set in other libraries: pipelines, side files and data cards, one module each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wds_real.interop.cards import card
    from wds_real.interop.exports import side_files, write_side_files
    from wds_real.interop.huggingface import huggingface_features
    from wds_real.interop.stream import StoreStream, open_stream
    from wds_real.interop.webdataset import ExactlyOnce, WebDataset, register_stores

__all__ = [
    "ExactlyOnce",
    "StoreStream",
    "WebDataset",
    "card",
    "huggingface_features",
    "open_stream",
    "register_stores",
    "side_files",
    "write_side_files",
]

_HOME = {
    "ExactlyOnce": "webdataset",
    "StoreStream": "stream",
    "WebDataset": "webdataset",
    "card": "cards",
    "huggingface_features": "huggingface",
    "open_stream": "stream",
    "register_stores": "webdataset",
    "side_files": "exports",
    "write_side_files": "exports",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- what it returns depends on the name
    """Import a public name when it is first used: cards and side files need neither torch nor webdataset."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
