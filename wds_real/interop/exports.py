"""Side files that other libraries read beside the shards; they change neither the shards nor the digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wds_real.errors import MissingError, StoreError, first_few
from wds_real.format.side_files import CARD_NAME, CROISSANT_NAME, TIMM_NAME
from wds_real.interop.accepted_sets import check_written_here
from wds_real.interop.cards import card
from wds_real.interop.dali_index import dali_indexes
from wds_real.interop.timm_info import timm_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wds_real.data.dataset import Dataset
    from wds_real.storage.base import Store

__all__ = ["SideFileForm", "side_files", "write_side_files"]

SideFileForm = Literal["timm", "dali", "hf", "croissant"]


def side_files(dataset: Dataset, form: SideFileForm) -> dict[str, bytes]:
    """Return the side files of a data set by the names under which a library looks for them.

    ``timm``: ``_info.json``; ``dali``: an ``.idx`` for each shard; ``hf``: ``README.md``, the dataset card that
    ``datasets.load_dataset(FOLDER)`` reads; ``croissant``: ``croissant.json``.

    Args:
        dataset: From `wds_real.open_dataset`; files describe the whole set, whatever its split.
        form: Library whose side files are returned.

    Raises:
        StoreError: the shards were written by another tool, or hold other images.
    """
    check_written_here(dataset)
    match form:
        case "timm":
            return {TIMM_NAME: timm_info(dataset)}
        case "dali":
            return dali_indexes(dataset)
        case "hf":
            return {CARD_NAME: card(dataset, "hf").encode("utf-8")}
        case "croissant":
            return {CROISSANT_NAME: card(dataset, "croissant").encode("utf-8")}


def write_side_files(store: Store, files: Mapping[str, bytes], *, overwrite: bool = False) -> list[str]:
    """Write files, each atomically, and return the names of those written; files with the same content are skipped.

    Args:
        store: Usually the folder of the shards.
        files: Contents by name.
        overwrite: Replace files that have another content.

    Raises:
        StoreError: not `overwrite`, and there is a file with another content; then nothing is written.
    """
    found = {name: _content(store, name) for name in files}
    new = [name for name, data in files.items() if found[name] != data]
    replaced = [name for name in new if found[name] is not None]
    if replaced and not overwrite:
        raise StoreError(
            f"{store.url}: holds other files under these names: {first_few(replaced)}. Nothing was written. Move them, "
            "choose another place, or pass --overwrite to replace them."
        )
    for name in new:
        store.put(name, files[name], exclusive=not overwrite)
    return new


def _content(store: Store, name: str) -> bytes | None:
    try:
        return store.get(name)
    except MissingError:
        return None
