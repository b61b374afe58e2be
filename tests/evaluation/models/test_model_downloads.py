"""Downloads of weights: one process does them, says so once, and without a network the error says what to fetch."""

from __future__ import annotations

import importlib.util
import logging
import threading
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
import torch

from wds_real.errors import ModelError
from wds_real.evaluation.models.downloads import Weights, downloaded, hub_weights, url_weights

if TYPE_CHECKING:
    from pathlib import Path


def weights_in(folder: Path) -> Weights:
    return Weights("resnet of somewhere", folder, "Get it elsewhere.", (folder / "w.pth").exists)


def test_a_download_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is downloaded, and where it goes, is said before it is; what is there already is not mentioned."""
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with downloaded("timm:m", weights_in(tmp_path)):
            (tmp_path / "w.pth").touch()
    assert caplog.messages == [f"timm:m: downloading resnet of somewhere to {tmp_path}"]


def test_processes_that_wait_find_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of eight that start together one downloads; the others go on when it is done, all at the same time."""
    caplog.set_level(logging.INFO)
    started, together, found = threading.Barrier(8), threading.Barrier(7), list[bool]()

    def load() -> None:
        started.wait(60)
        with downloaded("timm:m", weights_in(tmp_path)):
            first = not (tmp_path / "w.pth").exists()
            (tmp_path / "w.pth").touch()
            found.append(not first)
            if not first:
                together.wait(60)  # nobody holds the lock any more

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [False] + [True] * 7
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (URLError("Name or service not known"), "no network"),
        (ConnectionError("refused"), "no network"),
        (type("GatedRepoError", (OSError,), {})("403"), "its owner has to grant access"),
        (type("RepositoryNotFoundError", (OSError,), {})("404"), "there is no such repository, or it is private"),
        (RuntimeError("odd"), "RuntimeError: odd"),
    ],
)
def test_a_failed_download_says_what_to_fetch_and_where_it_goes(error: Exception, words: str, tmp_path: Path) -> None:
    """The error has the reason, also where the library wrapped it, and the way to do without a network."""
    said = (
        rf"^timm:m: resnet of somewhere is not in {tmp_path} and cannot be downloaded \({words}.*\)\. Get it elsewhere"
    )
    with pytest.raises(ModelError, match=said), downloaded("timm:m", weights_in(tmp_path)):
        raise RuntimeError("the library's own words") from error


def test_an_error_after_the_download_is_the_librarys(tmp_path: Path) -> None:
    """Where the files are there, loading them failed."""

    def load() -> None:
        with downloaded("timm:m", weights_in(tmp_path)):
            (tmp_path / "w.pth").touch()
            raise ValueError("shape")

    with pytest.raises(ValueError, match="shape"):
        load()


def test_files_that_are_there_are_loaded_without_a_lock(tmp_path: Path) -> None:
    """Nothing is written beside them."""
    (tmp_path / "w.pth").touch()
    with downloaded("timm:m", weights_in(tmp_path)), downloaded("timm:m", None):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_a_folder_that_cannot_be_made_is_left_to_the_library(tmp_path: Path) -> None:
    """The lock is a courtesy: without it the download goes on."""
    (tmp_path / "file").touch()
    with downloaded("timm:m", Weights("w", tmp_path / "file" / "folder", "", lambda: False)):
        pass


def test_a_url_goes_to_torchs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the one that torch.hub looks for."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = url_weights("https://x.org/models/resnet18-f37072fd.pth?download=1")
    assert not weights.present()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert weights.present()
    assert weights.advice.endswith("put it there as resnet18-f37072fd.pth.")


def test_the_clients_own_lines_are_back_after_the_download(tmp_path: Path) -> None:
    """Its logger has its level again, also after an error."""
    client, levels = logging.getLogger("huggingface_hub"), list[int]()
    before = client.level

    def load() -> None:
        with downloaded("timm:m", weights_in(tmp_path)):
            levels.append(client.level)
            raise OSError

    with pytest.raises(ModelError):
        load()
    assert levels == [logging.ERROR]
    assert client.level == before


def test_without_the_hubs_client_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library then downloads from elsewhere, or says what it lacks."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert hub_weights("a/b", ["model.safetensors"]) is None
