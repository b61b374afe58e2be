"""Explain why a file cannot be read as a tar, and what to do."""

from __future__ import annotations

from wds_real.format.tar import UnreadEntryError
from wds_real.storage.files import stand_in

__all__ = ["explain_tar_error"]

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}
_OTHER = {
    b"PK\x03\x04": "a zip archive, not a tar: unpack it first.",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive, not a tar: unpack it first.",
    b"Rar!": "a rar archive, not a tar: unpack it first.",
    b"\xff\xd8\xff": "an image, not a tar. Give the tar, or the folder of the images.",
}


def explain_tar_error(error: Exception, head: bytes, num_bytes: int, *, if_damaged: str) -> str:
    r"""Return what is wrong with a file that is no whole tar, and what to do.

    >>> explain_tar_error(ValueError("..."), b"\x1f\x8b\x08", 3, if_damaged="Copy it again.")
    'compressed with gzip, but only plain tars can be read by range: run gunzip on it first.'

    Args:
        error: The TarError.
        head: First bytes of the file; 512 are enough.
        num_bytes: Its length.
        if_damaged: What to do if it is a tar that is damaged or cut.
    """
    if num_bytes == 0:
        return f"not a whole tar: the file is empty. {if_damaged}"
    if head[257:262] != b"ustar":
        for start, (name, program) in _COMPRESSED.items():
            if head.startswith(start):
                return f"compressed with {name}, but only plain tars can be read by range: run {program} on it first."
        if (what := stand_in(head)) is not None:
            return what
        for start, other in _OTHER.items():
            if head.startswith(start):
                return other
    if isinstance(error, UnreadEntryError):
        return f"cannot be read whole: {error}."
    return f"not a whole tar: {error}. {if_damaged}"
