"""Looking at a data set and at predictions: conditions, contact sheets, and the explorer page."""
