"""The command line: one module a command. The only place that prints, and the only one that knows click and rich."""
