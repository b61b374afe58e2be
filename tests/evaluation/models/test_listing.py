"""Wildcards, lists and folders: the models they stand for, in order, each once; what is wrong with them in one line."""

from __future__ import annotations

import fnmatch
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wds_real import LoadedModel, ModelError
from wds_real.evaluation.models.listing import find_models, names_several, weights_files

CLASSES = {
    "resnet18.a1_in1k": 1000, "resnet18.tv_in1k": 1000, "resnet50.tv_in1k": 1000, "resnetv2_50.in21k": 21843,
    "clip_resnet50.openai": 0, "vit_base.in1k": 1000,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As much of timm as lists models; the working folder is empty."""

    def list_models(pattern: str, *, pretrained: bool) -> list[str]:
        assert pretrained
        return [name for name in CLASSES if fnmatch.fnmatch(name, pattern)]

    stand_in: Any = SimpleNamespace(
        list_models=list_models, get_pretrained_cfg=lambda name: SimpleNamespace(num_classes=CLASSES[name])
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    monkeypatch.chdir(tmp_path)


def names(*specs: str) -> list[str]:
    return [source.name for source in find_models(specs)]


def test_a_wildcard_stands_for_pretrained_models_of_1000_classes(caplog: pytest.LogCaptureFixture) -> None:
    """In timm's order; how many were left out is said."""
    caplog.set_level("INFO")
    assert names("timm:resnet*") == ["timm:resnet18.a1_in1k", "timm:resnet18.tv_in1k", "timm:resnet50.tv_in1k"]
    assert "timm:resnet*: 3 models, 1 left out: not of 1,000 classes" in caplog.text
    assert names("timm:resnet??.tv_in1k") == ["timm:resnet18.tv_in1k", "timm:resnet50.tv_in1k"]
    assert names("timm:resnet[5]0.*") == ["timm:resnet50.tv_in1k"]


def test_each_model_is_there_once_in_the_order_of_its_first_name() -> None:
    """A name beside a wildcard that it matches, or twice, is one model."""
    assert names("timm:vit_base.in1k", "timm:*in1k", "a:b", "a:b") == [
        "timm:vit_base.in1k", "timm:resnet18.a1_in1k", "timm:resnet18.tv_in1k", "timm:resnet50.tv_in1k", "a:b",
    ]  # fmt: skip


def test_a_list_has_a_name_a_line_and_comments() -> None:
    """Blank lines, comments, blanks around names, Windows' line ends and a byte order mark are passed over."""
    Path("models.txt").write_bytes(
        b"\xef\xbb\xbf# the small ones\r\n\r\n  timm:resnet18.a1_in1k  # tiny\r\nmy_models:make\n#timm:no\ntimm:vit*\n"
    )
    found = find_models(["@models.txt", "last:one"])
    assert [(source.name, source.where) for source in found] == [
        ("timm:resnet18.a1_in1k", "models.txt:3"), ("my_models:make", "models.txt:4"),
        ("timm:vit_base.in1k", "models.txt:6"), ("last:one", ""),
    ]  # fmt: skip


def test_a_hash_inside_a_name_is_no_comment() -> None:
    """Only a hash at the start, or after a blank, begins a comment."""
    Path("models.txt").write_text("exports/model#2.pt2\n")
    assert names("@models.txt") == ["exports/model#2.pt2"]


def test_a_folder_stands_for_its_model_files(tmp_path: Path) -> None:
    """By name; files that are no models, hidden files and folders are passed over. A list may name a folder."""
    folder = tmp_path / "exports"
    (folder / "c.pt2").mkdir(parents=True)
    for name in ("b.pt2", "a.pt2", "README.md", ".hidden.pt2"):
        (folder / name).touch()
    assert names("exports") == ["exports/a.pt2", "exports/b.pt2"]
    Path("models.txt").write_text("exports\n")
    assert names("@models.txt") == ["exports/a.pt2", "exports/b.pt2"]


def test_a_folder_of_checkpoints_stands_for_its_files(tmp_path: Path) -> None:
    """Files of weights, by name."""
    for name in ("model_best.pth.tar", "epoch-2.pth", "epoch-1.safetensors", "args.yaml", "summary.csv", "images.tar"):
        (tmp_path / name).touch()
    assert [path.name for path in weights_files(tmp_path)] == [
        "epoch-1.safetensors",
        "epoch-2.pth",
        "model_best.pth.tar",
    ]
    with pytest.raises(ModelError, match="a folder with no file of weights"):
        weights_files(tmp_path.parent)


def test_models_are_loaded_by_the_function_given() -> None:
    """With the name of the single model, when its turn comes and not before."""
    loaded: list[str] = []

    def load(spec: str) -> LoadedModel:
        loaded.append(spec)
        return LoadedModel(spec, lambda image: image)

    sources = find_models(["timm:resnet50*", "a:b"], load=load)
    assert loaded == []
    assert [source.load().spec for source in sources] == loaded == ["timm:resnet50.tv_in1k", "a:b"]


@pytest.mark.parametrize(
    ("spec", "several"),
    [
        ("timm:resnet*", True), ("timm:resnet1?", True), ("@models.txt", True), (".", True), ("timm:resnet18", False),
        ("my_models:make", False), ("model.pt2", False), ("", False), ("a\x00b", False), ("x" * 5000, False),
        ("torchvision:resnet*", False),
    ],
)  # fmt: skip
def test_forms_that_stand_for_several_are_known(spec: str, several: bool) -> None:
    """Whatever the name: nothing is raised."""
    assert names_several(spec) is several


BAD_LISTS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, r"models\.txt: the list of models cannot be read: No such file"),
    "empty": (b"", r"models\.txt: the list names no model"),
    "comments only": (b"# a\n\n # b\n", r"models\.txt: the list names no model"),
    "not text": (b"timm:resnet18\n\xff\xfe\n", r"models\.txt:2: not UTF-8"),
    "another list": (b"a:b\n@other.txt\n", r"models\.txt:2: @other\.txt is a list in a list"),
    "two names": (b"a:b\n\na:b c:d\n", r"models\.txt:3: 'a:b c:d' is not the name of a model"),
    "control characters": (b"a:b\x1b[2J\n", r"models\.txt:1: 'a:b\\x1b\[2J' is not the name"),
    "no match": (b"a:b\ntimm:nothing*\n", r"models\.txt:2: timm:nothing\*: no pretrained model of timm"),
    "huge": (b"#" * (2 << 20), r"models\.txt: 2,097,152 bytes, expected a list of models"),
}


@pytest.mark.parametrize("fault", BAD_LISTS)
def test_a_bad_list_is_one_line_with_its_number(fault: str) -> None:
    """File, line and what is wrong; no model is loaded before."""
    content, message = BAD_LISTS[fault]
    if content is not None:
        Path("models.txt").write_bytes(content)
    with pytest.raises(ModelError, match=f"^{message}"):
        find_models(["@models.txt"])


def test_other_things_in_place_of_a_list() -> None:
    """A folder, a pipe and no name at all."""
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for spec in ("@folder", "@pipe", "@", "@a\x00b"):
        with pytest.raises(ModelError, match="the list of models cannot be read"):
            find_models([spec])


def test_a_wildcard_without_a_match() -> None:
    """The message says whether models of other classes match."""
    with pytest.raises(ModelError, match=r"^timm:none\*: no pretrained model of timm with 1,000 classes matches\.$"):
        find_models(["timm:none*"])
    with pytest.raises(ModelError, match=r"1 that match have other classes, such as timm:clip_resnet50\.openai"):
        find_models(["timm:clip*"])


def test_a_folder_without_models() -> None:
    """The message says how to name a folder that timm saved."""
    Path("saved").mkdir()
    with pytest.raises(ModelError, match=r"^saved: a folder with no model file in it\. .*timm:local-dir:saved"):
        find_models(["saved"])
