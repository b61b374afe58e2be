"""What lies on disk: tar archives, the manifest, the sample index, and the root that holds them."""
