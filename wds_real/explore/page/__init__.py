"""The explorer page: one static file to look at labels, predictions and images. Runs without torch."""
