"""A table of models, one row a result: reading the rows, ranking them, and the formats of the table."""
