"""Which mistake in a model's input explains its accuracy: the settings that are tried, and the trials."""
