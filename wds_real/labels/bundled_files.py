"""The bundled data files of ``data/``: read from the installed package and checked against their SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import zlib

from wds_real.errors import SourceError

__all__ = ["read_bundled"]

_SHA256 = {
    "real.json": "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b",
    "validation_labels.txt": "313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604",
    "classes.tsv": "a7303c8079ed41ad970818e19378d317241f040d377db05b859270de7d03ff43",
    "devkit_classes.txt": "005c7f416c3148a9db38dfe49f7ac4f2ce7f79fb220a3471116f6baba76f96b8",
    "published_results.tsv": "d03a16537a0a4622821e1f34a81c85662979c8aa946b8bf865f6d5ebd19828d0",
    "rater_scores.npz": "ac31e1073ae1b1b18c32d3c64ad4a77ae4f698b82618e192558c95b57b3db8e4",
}
_ADVICE = "The installation is damaged: install wds_real again."


def read_bundled(name: str) -> bytes:
    """Return the decompressed content of a bundled file; ``data/README.md`` says where each comes from.

    Raises:
        SourceError: the file cannot be read, or its SHA-256 is not the expected one.
    """
    folder = importlib.resources.files("wds_real") / "labels" / "data"
    try:
        if name.endswith(".npz"):  # compressed already
            data = (folder / name).read_bytes()
        else:
            data = gzip.decompress((folder / f"{name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"wds_real/labels/data/{name}: cannot be read: {error}. {_ADVICE}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != _SHA256[name]:
        raise SourceError(f"wds_real/labels/data/{name}: SHA-256 is {found}, expected {_SHA256[name]}. {_ADVICE}")
    return data
