"""How far an evaluation is, and where its time goes: the bar, the sum over ranks, and the stopwatch."""
