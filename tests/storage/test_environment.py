"""The environment variables that name an S3 endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.storage.environment import endpoint_from_environment

if TYPE_CHECKING:
    import pytest


def test_the_variable_for_s3_comes_before_that_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in AWS's own tools; an empty variable counts as unset."""
    assert endpoint_from_environment() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    assert endpoint_from_environment() == "http://all:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert endpoint_from_environment() == "http://s3:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    assert endpoint_from_environment() == "http://all:1"
