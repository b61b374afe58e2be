"""Programs in ``.pt2`` archives: their files are checked for code before torch loads them."""
