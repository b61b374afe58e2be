"""The output of a run: what identifies it, a record of each finished batch, result and predictions."""
