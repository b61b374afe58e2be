"""Models by name: one module for each source, and `load`, which chooses among them."""
