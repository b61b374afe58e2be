"""Model files: a check before a runtime reads them, and the digest that identifies them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wds_real.errors import ModelError
from wds_real.storage.files import stand_in

__all__ = ["file_digest"]


def file_digest(path: str, expected: str) -> str:
    """Return the SHA-256 (hex) of the file of a model.

    Args:
        path: The file.
        expected: What it should be, for the message.

    Raises:
        ModelError: it is missing, a folder, empty, a web page, or a pointer of Git LFS; or it cannot be read.
    """
    place = Path(path)
    if not place.is_file():
        raise ModelError(f"{path}: {'a folder' if place.is_dir() else 'no such file'}. Expected {expected}.")
    try:
        with place.open("rb") as file:
            start = file.read(256)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}.") from error
    if not start:
        raise ModelError(f"{path}: the file is empty. Expected {expected}.")
    if (what := stand_in(start, may_be_xml=True)) is not None:  # OpenVINO's models are XML
        raise ModelError(f"{path}: {what} Expected {expected}.")
    return digest
