"""Other libraries' pipelines on the same data, one module each."""

from wds_real.interop.webdataset import ExactlyOnce, StoreStream, WebDataset, open_stream, register_stores

__all__ = ["ExactlyOnce", "StoreStream", "WebDataset", "open_stream", "register_stores"]
