"""From predictions to counts, intervals and a result, without torch."""
