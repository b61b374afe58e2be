"""Models that another runtime than torch runs, on arrays: one adapter a file."""
