"""Environment variables of stores: endpoints, and what the client library reads."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Variable", "endpoint_from_environment", "hub_from_environment", "variable_from_environment"]

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class Variable(NamedTuple):
    """A variable and its value."""

    name: str
    value: str


def endpoint_from_environment() -> Variable | None:
    """Return the S3 endpoint set in AWS's environment variables, or None for Amazon's."""
    found = (Variable(name, os.environ.get(name, "")) for name in _ENDPOINTS)
    return next((variable for variable in found if variable.value), None)


def hub_from_environment() -> str:
    """Return the URL of Hugging Face's hub, or of the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def variable_from_environment(name: str) -> str:
    """Return the value of a variable, "" if it is not set."""
    return os.environ.get(name, "")
