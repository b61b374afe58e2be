"""One module per command, those about data sets in `datasets`; each defines `command`."""
