"""Environment variables that say where a store is."""

from __future__ import annotations

import os

__all__ = ["endpoint_from_environment"]


def endpoint_from_environment() -> str | None:
    """Return the S3 endpoint set in AWS's environment variables, or None for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
