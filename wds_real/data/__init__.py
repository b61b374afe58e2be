"""The read path: positions to verified bytes, images and batches."""
