"""Models that other runtimes than torch run, on NumPy arrays: one module per runtime."""
