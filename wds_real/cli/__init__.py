"""The command line: one module per command. No other package prints, or imports click or rich."""
