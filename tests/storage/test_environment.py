"""The environment variables that name an endpoint or the hub, and those that the client library reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.storage.environment import endpoint_from_environment, hub_from_environment, variable_from_environment

if TYPE_CHECKING:
    import pytest


def test_the_variable_for_s3_comes_before_that_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in AWS's own tools; an empty variable counts as unset."""
    assert endpoint_from_environment() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    assert endpoint_from_environment() == ("AWS_ENDPOINT_URL", "http://all:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert endpoint_from_environment() == ("AWS_ENDPOINT_URL_S3", "http://s3:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    assert endpoint_from_environment() == ("AWS_ENDPOINT_URL", "http://all:1")


def test_a_mirror_of_the_hub_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Hugging Face's own tools."""
    assert hub_from_environment() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert hub_from_environment() == "https://mirror.example"


def test_a_variable_that_is_not_set_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is set to nothing."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert variable_from_environment("AWS_REGION") == "eu-west-1"
    assert variable_from_environment("AWS_DEFAULT_REGION") == ""
