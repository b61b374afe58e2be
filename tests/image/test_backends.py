"""The report of backends: what decodes and resizes, and the versions that a cache of pixels depends on."""

from __future__ import annotations

import importlib.metadata

import pytest

from wds_real.image import backends


@pytest.mark.parametrize(("crops", "decode"), [(True, "part"), (False, "whole")])
@pytest.mark.parametrize(("extension", "resize"), [(True, "extension"), (False, "pillow")])
def test_the_report_says_what_decodes_and_resizes(
    monkeypatch: pytest.MonkeyPatch, crops: bool, decode: str, extension: bool, resize: str
) -> None:
    """The values are those that results store: part or whole, extension or pillow."""
    monkeypatch.setattr(backends, "can_decode_crops", lambda: crops)
    monkeypatch.setattr(backends, "HAVE_EXTENSION", extension)
    assert backends.describe() == {"decode": decode, "resize": resize}


def test_the_versions_are_those_installed() -> None:
    """Pillow and simplejpeg are reported, with the versions of their distributions, and nothing else."""
    version = importlib.metadata.version
    assert backends.decoder_versions() == {"pillow": version("pillow"), "simplejpeg": version("simplejpeg")}
