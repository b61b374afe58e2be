"""The evaluation loop, the metric, and the sources of models."""
