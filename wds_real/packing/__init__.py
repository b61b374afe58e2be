"""The write path: the validation images become shards, an index and a manifest, which can be verified."""
