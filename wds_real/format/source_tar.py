"""The tar that a data set was packed from, and whether it is the official one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from wds_real.errors import ManifestError
from wds_real.format.json_fields import field

__all__ = ["OFFICIAL_TAR", "SourceTar", "describe_source"]

_SHA256 = re.compile(r"([0-9a-f]{64})?")


@dataclass(frozen=True, slots=True)
class SourceTar:
    """A tar of images; the attributes are the fields of the manifest's JSON.

    Attributes:
        num_bytes: Its length.
        sha256: Its SHA-256 (hex), or "" if it was not computed: for a tar whose length is not the official one's, or
            a tar at a URL, which would have to be downloaded twice.
    """

    num_bytes: int
    sha256: str

    @property
    def is_official(self) -> bool | None:
        """Whether this is ``ILSVRC2012_img_val.tar`` as it is distributed; None if that is not known."""
        if self.num_bytes != OFFICIAL_TAR.num_bytes:
            return False
        return self.sha256 == OFFICIAL_TAR.sha256 if self.sha256 else None

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str) -> SourceTar:
        """Parse the manifest's field.

        Raises:
            ManifestError: a part of it is missing or wrong.
        """
        sha256 = field(value, "sha256", str, where)
        if not _SHA256.fullmatch(sha256):
            raise ManifestError(f"{where}: sha256 of source_tar is {sha256[:70]!r}, expected 64 hex digits. {_ADVICE}")
        return cls(field(value, "num_bytes", int, where), sha256)


OFFICIAL_TAR = SourceTar(6_744_924_160, "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0")
_ADVICE = "The manifest was edited or damaged. Copy it again, or pack again."


def describe_source(tar: SourceTar | None, *, partial: bool) -> str:
    """Return in words whether a data set was packed from the official tar, according to its manifest."""
    if partial:
        return "a part of the validation set"
    if tar is None:
        return "unknown: it was not packed from a tar, or by an earlier version"
    if tar.num_bytes != OFFICIAL_TAR.num_bytes:
        return (
            f"not the official ILSVRC2012_img_val.tar: a tar of {tar.num_bytes:,} bytes, the official one has "
            f"{OFFICIAL_TAR.num_bytes:,}"
        )
    if not tar.sha256:
        return "a tar of the official length; its content was not compared"
    if tar.sha256 != OFFICIAL_TAR.sha256:
        return (
            f"not the official ILSVRC2012_img_val.tar: a tar of its length with SHA-256 {tar.sha256[:16]}..., the "
            f"official one has {OFFICIAL_TAR.sha256[:16]}..."
        )
    return "the official ILSVRC2012_img_val.tar (length and SHA-256)"
