"""The command line. No other package imports click; besides it, only the progress bar of `evaluation` prints."""
