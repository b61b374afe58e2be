"""The parts of scripts/bench.py: data, rows, peers, figures, report."""
