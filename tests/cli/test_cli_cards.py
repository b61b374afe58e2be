"""card and export: what they print, where they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wds_real
from wds_real.interop import card

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import Ended
    from support.s3 import S3Server


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", ["md", "hf", "croissant", "bibtex"])
def test_card_prints_the_card(run: Callable[..., Ended], form: str) -> None:
    """Stdout has the card and nothing else."""
    expected = card(wds_real.open_dataset("shards"), form)  # type: ignore[arg-type]  # a literal
    assert run("card", "shards", "--format", form) == (0, expected, "")


@pytest.mark.usefixtures("here")
def test_card_is_markdown_of_the_folder_shards_by_default(run: Callable[..., Ended]) -> None:
    """Without arguments, the card of ./shards is printed as Markdown."""
    assert run("card").out == run("card", "shards", "--format", "md").out


@pytest.mark.usefixtures("here")
def test_card_replaces_no_other_file_unasked(run: Callable[..., Ended]) -> None:
    """-o writes a file once; a file with another content stays unless --overwrite is given."""
    assert run("card", "-o", "new/card.md").out == "wrote new/card.md\n"
    assert run("card", "-o", "new/card.md").out == "new/card.md is up to date\n"
    Path("new/card.md").write_text("mine")
    code, out, err = run("card", "-o", "new/card.md")
    assert (code, out) == (1, "")
    assert err.startswith("error: new: holds other files under these names: card.md. Nothing was written.")
    assert Path("new/card.md").read_text() == "mine"
    assert run("card", "-o", "new/card.md", "--overwrite").code == 0
    assert Path("new/card.md").read_text("utf-8") == run("card").out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("timm", ["_info.json"]),
        ("dali", [f"imagenet2012_real-validation-00000{number}.idx" for number in range(3)]),
        ("hf", ["README.md"]),
        ("croissant", ["croissant.json"]),
    ],
)
def test_export_writes_beside_the_shards(run: Callable[..., Ended], form: str, names: list[str]) -> None:
    """The files appear in the folder of the shards, are named, and verify stays content; the digest is the same."""
    before = {path.name for path in Path("shards").iterdir()}
    digest = wds_real.open_dataset("shards").digest
    code, out, err = run("export", "shards", "--format", form)
    count = "1 file" if len(names) == 1 else "3 files"
    assert (code, out, err) == (0, f"shards: wrote {count} for {form} ({', '.join(names)})\n", "")
    assert {path.name for path in Path("shards").iterdir()} - before == set(names)
    verified = run("verify", "shards", "--quiet")
    assert (verified.code, verified.out.splitlines()[-1]) == (0, f"digest {digest}")
    again = run("export", "shards", "--format", form).out
    assert again == f"shards: wrote 0 files for {form}, {len(names)} up to date ({', '.join(names)})\n"


@pytest.mark.usefixtures("here")
def test_export_replaces_no_other_file_unasked(run: Callable[..., Ended]) -> None:
    """A README.md of one's own beside the shards stays, with exit code 1."""
    Path("shards/README.md").write_text("mine")
    code, out, err = run("export", "shards", "--format", "hf")
    assert (code, out) == (1, "")
    assert "holds other files under these names: README.md" in err
    assert Path("shards/README.md").read_text() == "mine"


def test_the_shards_of_a_bucket_are_described_in_a_folder(run: Callable[..., Ended], s3: S3Server, here: Path) -> None:
    """A root in an object store has a card, and its side files go to -o; without it they are refused in words."""
    assert here.is_dir()
    url = "s3://test/cards"
    options = [word for name, value in s3.options.items() for word in ("--storage-option", f"{name}={value}")]
    assert run("pack", "val.tar", url, "--allow-partial", "--samples-per-shard", "50", *options, "-q").code == 0
    assert run("card", url, *options).out == run("card", "shards").out
    code, out, err = run("export", url, "--format", "timm", *options)
    assert (code, out) == (2, "")
    assert "is a URL: side files are written to folders. Pass -o DIR, and copy them beside the shards." in err
    assert run("export", url, "--format", "timm", "-o", "side", *options).code == 0
    assert run("export", "shards", "--format", "timm").code == 0
    assert Path("side/_info.json").read_bytes() == Path("shards/_info.json").read_bytes()


@pytest.mark.usefixtures("here")
def test_export_needs_a_form(run: Callable[..., Ended]) -> None:
    """Without --format nothing is written."""
    before = sorted(Path("shards").iterdir())
    code, _, err = run("export", "shards")
    assert (code, sorted(Path("shards").iterdir())) == (2, before)
    assert "--format" in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [["card"], ["export", "--format", "hf"]])
def test_a_folder_without_a_data_set_is_refused(run: Callable[..., Ended], command: list[str]) -> None:
    """An unfinished set has neither card nor side files."""
    Path("shards/manifest.json").unlink()
    code, out, err = run(command[0], "shards", *command[1:])
    assert (code, out) == (4, "")
    assert "no manifest.json" in err
    assert not Path("shards/README.md").exists()


@pytest.mark.usefixtures("here")
def test_croissant_on_stdout_is_one_json_object(run: Callable[..., Ended]) -> None:
    """It can be piped into a validator."""
    assert json.loads(run("card", "--format", "croissant").out)["name"] == "imagenet2012_real"
