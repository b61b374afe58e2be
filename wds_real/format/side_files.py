"""The side files that other libraries read beside the shards, and their removal when the set is replaced."""

from __future__ import annotations

import json
import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from wds_real.errors import MissingError, StoreError, first_few
from wds_real.format.manifest import MANIFEST_NAME, SHARD_NAME

if TYPE_CHECKING:
    from wds_real.storage.base import Store

__all__ = ["CARD_NAME", "CROISSANT_NAME", "TIMM_NAME", "dali_name", "refuse_old_card", "remove_side_files"]

TIMM_NAME, CARD_NAME, CROISSANT_NAME = "_info.json", "README.md", "croissant.json"
_LOG = logging.getLogger(__name__)


def dali_name(shard: str) -> str:
    """Return the name of a shard's index file for DALI.

    >>> dali_name("imagenet2012_real-validation-000000.tar")
    'imagenet2012_real-validation-000000.idx'
    """
    return PurePosixPath(shard).with_suffix(".idx").name


def refuse_old_card(root: Store) -> None:
    """Refuse to replace a set whose digest is in a ``README.md`` beside it, which people may have edited.

    Raises:
        StoreError: there is such a file.
    """
    digest = _manifest(root).get("digest")
    if isinstance(digest, str) and digest and digest in _text(root, CARD_NAME):
        raise StoreError(
            f"{root.url}: {CARD_NAME} describes the set that would be replaced (digest {digest[:12]}...). Nothing was "
            "changed. Move or delete it, and write it again afterwards: wds-real export ROOT --format hf."
        )


def remove_side_files(root: Store, *, shards_stay: bool = False) -> None:
    """Remove the side files that describe the set in `root`, which is about to be replaced, and log their names.

    Side files that name neither its shards nor its digests, because they are of other sets and tools, are kept.

    Args:
        root: Where the set is, still with its ``manifest.json``.
        shards_stay: Whether only index and manifest are replaced; then files that describe single shards are kept.
    """
    manifest, names = _manifest(root), set(root.list())
    found = []
    if not shards_stay:
        indexes = {dali_name(name): name for name in [*names, *_shards(manifest)] if SHARD_NAME.fullmatch(name)}
        found += [name for name in names if name in indexes]
        found += [TIMM_NAME] if TIMM_NAME in names and SHARD_NAME.search(_text(root, TIMM_NAME)) else []
    digest = manifest.get("index", {}).get("sha256") if isinstance(manifest.get("index"), dict) else None
    if CROISSANT_NAME in names and isinstance(digest, str) and digest and digest in _text(root, CROISSANT_NAME):
        found.append(CROISSANT_NAME)
    for name in found:
        root.delete(name)
    if found:
        _LOG.warning(
            "removed %s: side files of the set that is replaced. To write them again: wds-real export",
            first_few(sorted(found)),
        )


def _manifest(root: Store) -> dict[str, Any]:
    """Return the manifest unchecked, because the set may be damaged; empty if it is not JSON."""
    try:
        found = json.loads(_text(root, MANIFEST_NAME))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _shards(manifest: dict[str, Any]) -> list[str]:
    shards = manifest.get("shards")
    names = [shard.get("name") for shard in shards if isinstance(shard, dict)] if isinstance(shards, list) else []
    return [name for name in names if isinstance(name, str)]


def _text(root: Store, name: str) -> str:
    """Return the content of a file as text, "" if there is no file."""
    try:
        return root.get(name).decode("utf-8", errors="replace")
    except MissingError:
        return ""
