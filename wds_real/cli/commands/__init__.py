"""One module a command, those about data sets in `datasets`; each defines `command`."""
