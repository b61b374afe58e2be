"""Other libraries' pipelines on the same data, one module each."""

from wds_real.interop.stream import StoreStream, open_stream
from wds_real.interop.webdataset import ExactlyOnce, WebDataset, register_stores

__all__ = ["ExactlyOnce", "StoreStream", "WebDataset", "open_stream", "register_stores"]
