"""What scripts/bench.py measures: data, rows, peers, figures, report."""
