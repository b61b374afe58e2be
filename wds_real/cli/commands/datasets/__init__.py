"""Commands about data sets, one module each; each defines `command`."""
