"""Downloads of weights: one process of a machine at a time, logged, with advice for machines without a network."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.failures import describe
from wds_real.storage.files import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Weights", "downloaded", "hub_weights", "url_weights"]

_LOG = logging.getLogger(__name__)
_LOCK = ".wds_real.lock"


@dataclass(frozen=True, slots=True)
class Weights:
    """Files that a library downloads if they are missing.

    Attributes:
        name: What is downloaded, and from where.
        folder: Where it goes.
        advice: How to get it there without this machine's network.
        present: Returns whether it is there.
    """

    name: str
    folder: Path
    advice: str
    present: Callable[[], bool]


@contextmanager
def downloaded(spec: str, weights: Weights | None) -> Iterator[None]:
    """Run the block, in which a library downloads missing files, under a lock between the processes of this machine.

    The first process downloads and logs a line. The processes that waited find the files, and run the block without the
    lock. If no file is missing, or `weights` is None, no lock is taken.

    Raises:
        ModelError: the block failed, and the files are still missing: there is no network, or they do not exist.
    """
    if weights is None or weights.present():
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # a folder without locks, or that cannot be made: the library says what is wrong
            weights.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(weights.folder / _LOCK))
        if weights.present():
            stack.close()
        else:
            _LOG.info("%s: downloading %s to %s", spec, weights.name, weights.folder)
        stack.enter_context(_quiet_retries())
        try:
            yield
        except Exception as error:
            if weights.present():
                raise
            raise ModelError(
                f"{spec}: {weights.name} is not in {weights.folder} and cannot be downloaded "
                f"({_why_not(error)}). {weights.advice}"
            ) from error


@contextmanager
def _quiet_retries() -> Iterator[None]:
    """Silence the warnings of the hub's client about retries; if they all fail, the error says why."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def url_weights(url: str, folder: Path | None = None) -> Weights:
    """Return the weights at a URL, which torch keeps in its own folder if none is given."""
    folder = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else folder
    path = folder / Path(urlsplit(url).path).name
    advice = f"Where there is a network, get that file; put it there as {path.name}."
    return Weights(url, folder, advice, path.exists)


def hub_weights(repository: str, files: Sequence[str], revision: str | None = None) -> Weights | None:
    """Return the weights of a repository of the Hugging Face hub; None if its client is not installed.

    Args:
        repository: USER/MODEL.
        files: Names of files, of which the model needs one.
        revision: A branch, tag or commit; None for the main branch.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415 -- of the libraries that need it

    def present() -> bool:
        return any(isinstance(try_to_load_from_cache(repository, file, revision=revision), str) for file in files)

    at = "" if revision is None else f" --revision {revision}"
    folder = f"models--{repository.replace('/', '--')}"
    advice = f"Where there is a network: hf download {repository}{at}; copy the folder {folder} of its cache there."
    return Weights(f"{repository} of the Hugging Face hub", Path(constants.HF_HUB_CACHE), advice, present)


def _why_not(error: BaseException) -> str:
    """Return in few words why a download failed."""
    chain = list[BaseException]()
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {type(each).__name__ for each in chain}
    for name, words in _REASONS.items():
        if name in names:
            return words
    return describe(chain[-1])


_OFFLINE = "no network"
_REASONS = {  # of huggingface_hub, requests, httpx and urllib
    "GatedRepoError": "its owner has to grant access: ask for it on its page, then hf auth login",
    "RepositoryNotFoundError": "there is no such repository, or it is private: hf auth login",
    "RevisionNotFoundError": "there is no such revision",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "ConnectError": _OFFLINE,
    "ConnectionError": _OFFLINE,
    "ConnectTimeout": _OFFLINE,
    "gaierror": _OFFLINE,
    "URLError": _OFFLINE,
}
