"""The options for weights and classes: as timm has them, with the same result in every form, and one line if wrong."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import torch
from support.commands import Ended, expect_one_line, in_child

from wds_real.cli.model_options import ModelCommand, ModelOptions, model_options
from wds_real.labels import bundled, classes

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = """
import torch
from wds_real import EvalTransform

class Net(torch.nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, width, 8, stride=8)
        self.fc = torch.nn.Linear(width * 16, num_classes)

    def forward(self, image):
        return self.fc(torch.relu(self.conv(image)).flatten(1))

def net(num_classes=1000, width=4):
    return Net(num_classes, width), EvalTransform(32)

def function():
    return lambda image: torch.zeros(len(image), 1000)
"""
WNIDS = [info.wnid for info in classes()]
FEW = ("--device", "cpu", "-j", "1", "-b", "20", "--split", "validation[:40]")


@pytest.fixture
def models(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the factories, imported in the working folder with the data set."""
    Path("my_models.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    import importlib

    return importlib.import_module("my_models")


def saved(models: Any, name: str, *, num_classes: int = 1000, width: int = 4, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    state: dict[str, Any] = models.net(num_classes, width)[0].state_dict()
    torch.save(state, name)
    return state


def evaluated(run: Callable[..., Ended], *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """Return the result and the top-5 of each image."""
    output = f"run{len(list(Path().glob('run*')))}"
    ended = run("eval", "shards", *FEW, "-m", "my_models:net", *arguments, "-o", output, "--json")
    assert ended.code == 0, ended.err
    with Path(output, "predictions.csv").open(newline="") as file:
        rows = [" ".join(row[f"top{rank}"] for rank in range(1, 6)) for row in csv.DictReader(file)]
    found: dict[str, Any] = json.loads(ended.out)
    return found, rows


def test_a_checkpoint_in_every_form_gives_one_result(run: Callable[..., Ended], models: Any) -> None:
    """Top level, prefixes, EMA, safetensors: the same predictions; the digest of each file is in its result."""
    state = saved(models, "a.pth")
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}}, "b.pth.tar")
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"state_dict": zeros, "state_dict_ema": state}, "c.ckpt")
    pytest.importorskip("safetensors.torch").save_file(state, "d.safetensors")
    results = [
        evaluated(run, "--checkpoint", *arguments)
        for arguments in (["a.pth"], ["b.pth.tar"], ["c.ckpt", "--use-ema"], ["d.safetensors"], ["c.ckpt"])
    ]
    first, others = results[0], results[1:4]
    for result, rows in others:
        assert rows == first[1]
        assert result["accuracy"] == first[0]["accuracy"]
        assert result["model"]["weights_digest"] == first[0]["model"]["weights_digest"]
    assert results[4][1] != first[1]
    assert len({result["model"]["checkpoint"]["sha256"] for result, _ in results[:4]}) == 4
    assert [result["model"]["checkpoint"]["state_dict"] for result, _ in results] == [
        "the top level", "state_dict", "state_dict_ema", "the top level", "state_dict",
    ]  # fmt: skip


def test_what_was_taken_is_said(models: Any) -> None:
    """In a line on stderr while it runs, unless --quiet, and in the printed result."""
    state = saved(models, "a.pth")
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, "b.pth")
    command = ("eval", "shards", *FEW, "-m", "my_models:net", "--checkpoint", "b.pth")
    ended = in_child(*command)
    assert ended.code == 0
    assert "b.pth: weights from model, prefix module. removed from 4 names" in ended.err
    assert " checkpoint b.pth, weights from model, sha256 " in ended.out
    assert in_child(*command, "--quiet").err == ""


def test_maps_give_the_result_of_the_plain_model(run: Callable[..., Ended], models: Any) -> None:
    """A background, first or last, and permuted outputs of the same network do not change one prediction."""
    state = saved(models, "a.pth")
    plain, rows = evaluated(run, "--checkpoint", "a.pth")
    for place in ("first", "last"):
        parts = {name: [torch.full_like(value[:1], 9.0), value] for name, value in state.items() if "fc" in name}
        more = {name: torch.cat(pair if place == "first" else pair[::-1]) for name, pair in parts.items()}
        torch.save(state | more, "b.pth")
        result, found = evaluated(run, "--checkpoint", "b.pth", "--num-classes", "1001", "--background", place)
        assert (found, result["accuracy"]) == (rows, plain["accuracy"])
        assert result["model"]["class_map"] == {"background": place}
        assert result["model"]["model_kwargs"] == {"num_classes": "1001"}
    order = torch.randperm(1000)
    torch.save(state | {name: value[order] for name, value in state.items() if "fc" in name}, "c.pth")
    Path("map.txt").write_text("\n".join(WNIDS[label] for label in order.tolist()))
    result, found = evaluated(run, "--checkpoint", "c.pth", "--class-map", "map.txt")
    assert (found, result["accuracy"]) == (rows, plain["accuracy"])
    assert result["model"]["class_map"]["file"] == "map.txt"


def test_arguments_of_the_builder(run: Callable[..., Ended], models: Any) -> None:
    """--model-kwargs reach the factory and are part of what identifies the run."""
    saved(models, "a.pth", width=2)
    result, _ = evaluated(run, "--checkpoint", "a.pth", "--model-kwargs", "width=2")
    assert result["model"]["model_kwargs"] == {"width": "2"}
    assert result["model"]["num_parameters"] == 3 * 64 * 2 + 2 + 32 * 1000 + 1000


@click.command("trial", cls=ModelCommand)
@click.argument("root", default="shards")
@model_options
@click.option("--flag", is_flag=True)
def trial(root: str, model_options: ModelOptions, flag: bool) -> None:
    click.echo(json.dumps([root, dict(model_options.model_kwargs), flag]))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model-kwargs", "a=1"], ["shards", {"a": 1}, False]),
        (["--model-kwargs", "a=1", "b=2.5", "c=x"], ["shards", {"a": 1, "b": 2.5, "c": "x"}, False]),
        (["--model-kwargs", "a=1", "b=2", "root"], ["root", {"a": 1, "b": 2}, False]),
        (["root", "--model-kwargs", "a=1", "b=2", "--flag"], ["root", {"a": 1, "b": 2}, True]),
        (["--model-kwargs", "a=1", "--model-kwargs", "b=None"], ["shards", {"a": 1, "b": None}, False]),
        (["--model-kwargs=a=1", "root"], ["root", {"a": 1}, False]),
        (["--model-kwargs", "a=(1, 2)", "b=True", "c='x y'"], ["shards", {"a": [1, 2], "b": True, "c": "x y"}, False]),
        (["--model-kwargs", "a=b=c", "e="], ["shards", {"a": "b=c", "e": ""}, False]),
        ([], ["shards", {}, False]),
    ],
)
def test_arguments_are_read_as_in_timm(
    arguments: list[str], expected: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Python literals, else text; several after one option, or the option repeated."""
    trial.main(arguments, standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == expected


WRONG: dict[str, tuple[list[str], int, str]] = {
    "no such file": (["--checkpoint", "none.pth"], 2, "none.pth: No such file"),
    "folder": (["--checkpoint", "shards"], 2, "shards: a folder with no file of weights"),
    "URL": (["--checkpoint", "https://host/a.pth"], 2, "is a URL, expected a path"),
    "empty file": (["--checkpoint", "empty.pth"], 2, "empty.pth: the file is empty"),
    "LFS pointer": (["--checkpoint", "lfs.pth"], 2, "lfs.pth: a Git LFS pointer"),
    "web page": (["--checkpoint", "page.pth"], 2, "page.pth: looks like a web page"),
    "truncated": (["--checkpoint", "cut.pth"], 2, "cut.pth: the file is cut or damaged"),
    "truncated safetensors": (["--checkpoint", "cut.safetensors"], 2, "cut.safetensors: the file is cut or damaged"),
    "text": (["--checkpoint", "my_models.py"], 2, "not a checkpoint"),
    "code": (["--checkpoint", "code.pth"], 2, "code.pth: needs posix.system to be loaded"),
    "a whole model": (["--checkpoint", "model.pth"], 2, "model.pth: needs torch.nn.modules.linear.Linear"),
    "settings": (["--checkpoint", "namespace.pth"], 2, "namespace.pth: needs argparse.Namespace"),
    "program": (["--checkpoint", "program.pt2"], 2, "program.pt2: an exported program"),
    "no state dict": (["--checkpoint", "epoch.pth"], 2, "epoch.pth: holds epoch, expected a state dict"),
    "only EMA": (["--checkpoint", "ema.pth"], 2, "ema.pth: holds only averaged weights (model_ema). Add --use-ema"),
    "no EMA": (["--checkpoint", "good.pth", "--use-ema"], 2, "good.pth: holds no averaged weights"),
    "EMA of nothing": (["--use-ema"], 2, "--use-ema chooses weights of a checkpoint: add --checkpoint"),
    "other architecture": (["--checkpoint", "other.pth"], 2, "other.pth: does not fit my_models:net. Missing: conv"),
    "other width": (["--checkpoint", "good.pth", "--model-kwargs", "width=2"], 2, "conv.weight is 4 x 3 x 8 x 8, not"),
    "999 classes": (["--checkpoint", "few.pth"], 2, "Add --num-classes 999."),
    "999 outputs": (["--checkpoint", "few.pth", "--num-classes", "999"], 2, "has 999 outputs, expected 1000"),
    "1001 classes": (["--checkpoint", "more.pth"], 2, "Add --num-classes 1001 and --background first (or last)"),
    "1001 outputs": (["--num-classes", "1001"], 2, "--background first, or --background last"),
    "21843 outputs": (["--num-classes", "21843"], 2, "one wnid or class index a line: --class-map FILE"),
    "a map of others": (["--background", "first"], 2, "has 1000 outputs, but the class map is for 1001"),
    "NaN": (["--checkpoint", "nan.pth"], 2, "NaN or infinite scores"),
    "both maps": (["--class-map", "map.txt", "--background", "last"], 2, "exclude each other"),
    "no map": (["--class-map", "none.txt"], 1, "none.txt: No such file"),
    "short map": (["--class-map", "short.txt"], 1, "are not named in its 2 lines"),
    "wrong map": (["--class-map", "wrong.txt"], 1, "wrong.txt, line 2: 'tench' is neither a wnid nor a class index"),
    "map with a double": (["--class-map", "double.txt"], 1, "line 1001: class 0 (n01440764) is on line 1 too"),
    "map with a title": (["--class-map", "title.txt"], 1, "title.txt, line 1: 'wnid' is neither"),
    "background": (["--background", "middle"], 2, "'middle' is not one of"),
    "no classes": (["--num-classes", "0"], 2, "--num-classes"),
    "arguments": (["--model-kwargs", "width"], 2, "expected NAME=VALUE"),
    "twice": (["--model-kwargs", "width=1", "width=2"], 2, "width is given twice"),
    "unknown argument": (["--model-kwargs", "depth=1"], 2, "takes other arguments (got an unexpected keyword argument"),
    "own option": (["--model-kwargs", "num_classes=1"], 2, "Use --num-classes"),
    "pretrained": (["--model-kwargs", "pretrained=1"], 2, "Use --checkpoint"),
}  # fmt: skip


def write_wrong_files(models: Any) -> None:
    state = saved(models, "good.pth")
    whole = Path("good.pth").read_bytes()
    Path("empty.pth").touch()
    Path("lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102530333\n")
    Path("page.pth").write_text("<!DOCTYPE html><title>Sign in</title>")
    Path("cut.pth").write_bytes(whole[: len(whole) // 2])
    pytest.importorskip("safetensors.torch").save_file(state, "whole.safetensors")
    Path("cut.safetensors").write_bytes(Path("whole.safetensors").read_bytes()[:5000])
    torch.save({"state_dict": state, "more": Shell()}, "code.pth")
    torch.save(torch.nn.Linear(2, 2), "model.pth")
    import argparse

    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, "namespace.pth")
    torch.export.save(torch.export.export(torch.nn.Flatten(), (torch.zeros(1, 3),)), "program.pt2")
    torch.save({"epoch": 1}, "epoch.pth")
    torch.save({"model_ema": state}, "ema.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), "other.pth")
    saved(models, "few.pth", num_classes=999)
    saved(models, "more.pth", num_classes=1001)
    torch.save(state | {"fc.bias": torch.full((1000,), torch.nan)}, "nan.pth")
    for name, lines in {
        "map": WNIDS,
        "short": WNIDS[:2],
        "wrong": [WNIDS[0], "tench", *WNIDS[2:]],
        "double": [*WNIDS, WNIDS[0]],
        "title": ["wnid", *WNIDS],
    }.items():
        Path(f"{name}.txt").write_text("\n".join(lines))


class Shell:
    """Pickles as a command for the shell that makes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, ("touch made",)


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG.values(), ids=WRONG)
def test_wrong_weights_and_maps_are_one_line(
    run: Callable[..., Ended], models: Any, arguments: list[str], code: int, words: str
) -> None:
    """Its exit code, nothing on stdout, one line that names the fault; and nothing that a file holds was run."""
    write_wrong_files(models)
    ended = run("eval", "shards", *FEW, "--quiet", "-m", "my_models:net", *arguments)
    expect_one_line(ended, code, words)
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        ("my_models:function", ["--checkpoint", "good.pth"], "a function, expected a torch.nn.Module"),
        ("program.pt2", ["--checkpoint", "good.pth"], "program.pt2: brings its own weights"),
        ("program.pt2", ["--num-classes", "5"], "program.pt2: brings its own weights"),
        ("good.pth", [], "-m timm:ARCHITECTURE --checkpoint good.pth"),
        ("efficientnet_lite0", ["--num-classes", "5"], "--num-classes 5 without --checkpoint"),
        ("efficientnet_lite0", ["--model-kwargs", "depth=5"], "cannot be built so"),
    ],
)
def test_options_that_a_model_does_not_take(
    run: Callable[..., Ended], models: Any, spec: str, arguments: list[str], words: str
) -> None:
    """One line too."""
    if spec == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install 'wds_real[demo]'")
    write_wrong_files(models)
    expect_one_line(run("eval", "shards", *FEW, "--quiet", "-m", spec, *arguments), 2, words)


def test_score_takes_the_maps_too(run: Callable[..., Ended], tmp_path: Path) -> None:
    """The numbers of a model with a background become classes; without the option, another accuracy comes out."""
    right = bundled().original[:100]
    path, class_map = tmp_path / "p.csv", tmp_path / "map.txt"

    def write(numbers: list[int]) -> None:
        rows = (f"ILSVRC2012_val_{place + 1:08d},{number}\n" for place, number in enumerate(numbers))
        path.write_text("file_name,pred\n" + "".join(rows))

    write([label + 1 for label in right])
    ended = run("score", path, "--allow-partial", "--background", "first")
    assert ended.code == 0
    assert "classes from 'pred' of 1,001 outputs (background first)" in ended.out
    assert "original top-1                 100 /     100" in ended.out
    class_map.write_text("\n".join([*(str(label) for label in range(1, 1000)), "0"]))
    write([(label - 1) % 1000 for label in right])
    found = json.loads(run("score", path, "--allow-partial", "--class-map", class_map, "--json").out)
    assert found["accuracy"]["original_top1"]["correct"] == 100
    plain = json.loads(run("score", path, "--allow-partial", "--json").out)
    assert plain["accuracy"]["original_top1"]["correct"] < 5
    expect_one_line(run("score", path, "--background", "last", "--class-map", "x"), 2, "exclude each other")
    expect_one_line(run("score", path, "--class-map", "x"), 1, "x: No such file")
