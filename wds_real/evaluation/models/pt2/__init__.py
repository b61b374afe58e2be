"""Programs of torch in files, ``.pt2`` archives and TorchScript: they are checked for code before torch loads them."""
