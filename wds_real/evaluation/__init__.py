"""The evaluation loop, its metric, and the models it runs."""
