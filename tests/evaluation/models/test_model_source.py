"""Names of models as names of folders: safe, readable and all different, whatever the models are called."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wds_real.evaluation.models.source import folder_names

SAFE = re.compile(r"[A-Za-z0-9_+=@][A-Za-z0-9._+=@-]*")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("timm:resnet50.a1_in1k", "timm-resnet50.a1_in1k"),
        ("torchvision:resnet50.IMAGENET1K_V2", "torchvision-resnet50.IMAGENET1K_V2"),
        ("my_models:small", "my_models-small"),
        ("exports/model.onnx", "exports-model.onnx"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "timm-hf-hub-timm-resnet18.a1_in1k"),
        ("../../etc/passwd", "etc-passwd"),
        ("/abs/model.pt2", "abs-model.pt2"),
        ("name with blanks", "name-with-blanks"),
    ],
)
def test_names_stay_readable(name: str, folder: str) -> None:
    """What a folder's name cannot have becomes a dash."""
    assert folder_names([name]) == [folder]


@pytest.mark.parametrize("name", ["", ".", "..", "/", "樹", "\x00", "\udcff", "-" * 300, "é\n\x1b[2J", "a" * 5_000])
def test_hostile_names_have_folders(name: str) -> None:
    """Names without a safe character, or too long ones, get a digest; none leaves the output folder."""
    [folder] = folder_names([name])
    assert SAFE.fullmatch(folder)
    assert len(folder) <= 120
    assert PurePosixPath("out", folder).parent == PurePosixPath("out")


def test_names_that_differ_only_in_unsafe_characters_get_digests() -> None:
    """Each has a folder of its own, the same one whatever the order."""
    names = ["a:b", "a/b", "a b", "c"]
    folders = folder_names(names)
    assert len(set(folders)) == 4
    assert folders[3] == "c"
    assert dict(zip(reversed(names), folder_names(names[::-1]), strict=True)) == dict(zip(names, folders, strict=True))


def test_names_that_differ_only_in_case_get_digests() -> None:
    """Some file systems do not tell Model from model."""
    assert len({name.casefold() for name in folder_names(["Model", "model"])}) == 2


def test_the_same_name_twice_is_numbered() -> None:
    """Two models may have one name; a third may have the name that the number would give."""
    assert folder_names(["m", "m", "m-2", "m"]) == ["m", "m-2", "m-2-2", "m-3"]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_folders_are_always_different_and_safe(names: list[str]) -> None:
    """For any names at all, on file systems that tell case and on those that do not."""
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all(SAFE.fullmatch(folder) for folder in folders)
