"""README and pages say what is so: their Python runs, their commands exist, their figures and messages are true."""

from __future__ import annotations

import ast
import contextlib
import html
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from support.environments import FAST

import wds_real
from wds_real import interop, labels
from wds_real.cli.main import cli
from wds_real.data import launchers

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
    for path in (
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        REPOSITORY / "shards" / "README.md",
        *sorted(DOCS.glob("*.md")),
    )
}
README = PAGES["README.md"]


class PythonBlock(NamedTuple):
    """A block of Python on a page, and the library outside the tested ones that its comment names."""

    page: str
    number: int
    code: str
    needs: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def python_blocks() -> list[PythonBlock]:
    found = []
    for page, text in PAGES.items():
        matches = re.finditer(r"(?:<!-- needs: (?P<needs>\w+) -->\n)?```python\n(?P<code>.*?)```", text, re.DOTALL)
        found += [PythonBlock(page, number, m["code"], m["needs"] or "") for number, m in enumerate(matches)]
    return found


def commands() -> list[tuple[str, bool]]:
    """Return the wds-real commands of all pages, each once, and whether it is in a block, to be typed as it stands."""
    found = dict[tuple[str, bool], None]()
    for text in PAGES.values():
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            typed = [line.split(" #")[0].strip() for line in lines if re.search(r"wds[-_]real [a-z]", line)]
            found |= dict.fromkeys((line, True) for line in typed)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found |= dict.fromkeys((line, False) for line in re.findall(r"`(wds-real [a-z][^`]*)`", prose))
    return list(found)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as MkDocs and GitHub make them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles)


def shown_result() -> list[str]:
    found = re.search(r"<!-- result of wds-real demo: begin[^\n]*\n```\n(.*?)```\n<!-- result", README, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


@cache
def texts_of_the_package() -> tuple[str, ...]:
    """Return all strings in the package's code but docstrings, a NUL where an f-string has a value."""
    found = []
    for path in Path(wds_real.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        for node in nodes:
            if node in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose ``shards`` is the committed tiny set, under the names that the pages use."""
    shutil.copytree(REPOSITORY / "shards" / "tiny", tmp_path / "shards")
    return tmp_path


@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_python_blocks_run(block: PythonBlock, folder: Path) -> None:
    """Each block of Python runs as it stands and prints something; warnings are errors where all libraries are ours."""
    if block.needs and importlib.util.find_spec(block.needs) is None:
        pytest.skip(f"{block.needs} is not installed")
    if "efficientnet_lite0" in block.code:
        pytest.importorskip("efficientnet_lite_pytorch", reason="the demo extra is not installed")
    warnings = () if block.needs else ("-W", "error")
    done = subprocess.run(
        [sys.executable, *warnings, "-c", block.code],
        check=False, capture_output=True, text=True, cwd=folder, env={**os.environ, **FAST},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_python_blocks_are_python_and_fit_on_a_screen(block: PythonBlock) -> None:
    """Also a block that cannot run here parses, and none is longer than 40 lines."""
    ast.parse(block.code)
    assert len(block.code.splitlines()) <= 40


@pytest.mark.parametrize(("command", "whole"), commands())
def test_commands_have_the_options_they_are_shown_with(command: str, whole: bool) -> None:
    """Every wds-real command parses: no page shows an option that does not exist. In the text some may be left out."""
    words = shlex.split(command)
    words = words[: words.index(">")] if ">" in words else words
    place = words.index("wds-real") if "wds-real" in words else words.index("wds_real")
    name, *rest = words[place + 1 :]
    parent = click.Context(cli, **cli.context_settings)  # commands keep the help option of their first context
    found = cli.get_command(parent, name)
    assert found is not None, f"there is no command {name}"
    with contextlib.nullcontext() if whole else contextlib.suppress(click.MissingParameter):
        found.make_context(name, list(rest), parent=parent)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    """Each link within the repository names a file that exists and a heading that is in it."""
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for path, _, anchor in (link.partition("#") for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose)):
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_navigation_lists_each_page_once() -> None:
    """mkdocs.yml names every page of docs/, and README links to every page but the overview."""
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))
    sections = [entry for item in config["nav"] for entry in item.values()]
    pages = [page for entry in sections for page in ([entry] if isinstance(entry, str) else _values(entry))]
    own = {path.name for path in DOCS.glob("*.md")}
    assert own <= set(pages)
    assert set(Counter(pages).values()) == {1}
    assert {f"docs/{name}" for name in own - {"index.md"}} <= set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))


def _values(entries: list[dict[str, str]]) -> list[str]:
    return [page for entry in entries for page in entry.values()]


def test_the_reference_has_every_public_name() -> None:
    """docs/api.md lists all of wds_real, wds_real.labels and wds_real.interop, each name once."""
    shown = re.findall(r"^::: (wds_real\.[\w.]+)$", PAGES["docs/api.md"], re.MULTILINE)
    modules = {"": wds_real, "labels.": labels, "interop.": interop}
    public = {f"wds_real.{prefix}{name}" for prefix, module in modules.items() for name in module.__all__}
    twice = {f"wds_real.labels.{name}" for name in set(wds_real.__all__) & set(labels.__all__)}  # under either name
    others = {  # a module, and what open_dataset, load_model and read_predictions take
        "wds_real.synthetic", "wds_real.storage.cache.ByteCache", "wds_real.labels.class_maps.ClassMap",
    }  # fmt: skip
    assert set(shown) == (public - twice) | others
    assert len(set(shown)) == len(shown)


def test_figures_of_the_labels_come_from_the_labels() -> None:
    """The counts of the data card are those of the bundled lists."""
    original, real = labels.bundled().original, labels.bundled().real
    lengths = Counter(map(len, real))
    pairs = Counter((min(len(accepted), 2), label in accepted) for label, accepted in zip(original, real, strict=True))
    kinds = {
        "the ReaL label is the original label": pairs[1, True],
        "one ReaL label, and it is another one": pairs[1, False],
        "several ReaL labels, the original label among them": pairs[2, True],
        "several ReaL labels without the original label": pairs[2, False],
        "no ReaL label": pairs[0, False],
        "all": len(real),
        "with a ReaL label": len(real) - lengths[0],
        "without a ReaL label": lengths[0],
        "ReaL labels in all": sum(map(len, real)),
        **{str(length): count for length, count in lengths.items()},
    }
    card = PAGES["docs/data-card.md"]
    assert dict(re.findall(r"^\| ([^|]+) \| ([\d,]+) \|$", card, re.MULTILINE)) == {
        name: f"{count:,}" for name, count in kinds.items()
    }
    right = pairs[1, True] + pairs[2, True]
    said = f"right on {right:,} of the {len(real) - lengths[0]:,} labelled images,\n{100 * right / 46_837:.3f} %"
    assert said in card
    assert f"ReaL labels give some images several labels, and {lengths[0]:,} images none" in README.replace("\n", " ")


def test_the_shown_result_is_the_demos(tmp_path: Path) -> None:
    """Each line of the result in README is printed by `wds-real demo`, and the image shows the same."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "wds_real", "demo", "--keep", str(tmp_path)],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, printed = shown_result(), done.stdout.splitlines()
    assert len(shown) > 8
    assert [line for line in shown if line not in printed] == []
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["run"]["world_size"] == 2
    excluded = result["accuracy"]["original_top1"]["total"] - result["accuracy"]["real_top1"]["total"]
    assert f"{excluded} of the 1,500 images have no ReaL label" in README


def test_the_image_of_the_result_shows_the_same() -> None:
    """The committed image holds the shown result, is small, and loads nothing from elsewhere."""
    image = (DOCS / "images" / "result.svg").read_text("utf-8")
    text = html.unescape(" ".join(re.findall(r"<text [^>]*>([^<]*)</text>", image))).replace("\xa0", " ")
    for line in shown_result()[1:]:  # the title is longer than the image is wide
        assert line.strip() in text
    assert len(image.encode()) < 60_000
    assert "url(http" not in image.replace(" ", "").replace('"', "")


def test_messages_in_troubleshooting_are_the_packages() -> None:
    """Each message of docs/troubleshooting.md is in one string of the code, with values where the page has dots."""
    messages = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    assert len(messages) > 60
    patterns = [".*".join(map(re.escape, re.split(r"\s*\.\.\.\s*", message))) for message in messages]
    known = [any(re.search(pattern, text) for text in texts_of_the_package()) for pattern in patterns]
    unknown = [message for message, is_known in zip(messages, known, strict=True) if not is_known]
    assert unknown == []


def test_the_page_of_clusters_shows_the_recipes_as_they_are() -> None:
    """docs/clusters.md holds each file of scripts/launch, byte for byte; scripts/make_shown_recipes.py writes them."""
    page = PAGES["docs/clusters.md"]
    with_recipes = runpy.run_path(str(REPOSITORY / "scripts" / "make_shown_recipes.py"))["with_recipes"]
    assert page == with_recipes(page)
    files = [path for path in (REPOSITORY / "scripts" / "launch").iterdir() if path.is_file()]
    assert files
    assert [path.name for path in files if path.read_text("utf-8") not in page] == []


def test_the_page_of_clusters_names_the_variables_that_are_read() -> None:
    """Each launcher whose variables give an independent rank its place has a row."""
    page = PAGES["docs/clusters.md"]
    names = [name for each in launchers._INDEPENDENT for name in (each.rank, each.world_size) if name]
    assert len(names) > 20
    assert [name for name in names if f"| `{name}`" not in page] == []


def test_the_map_names_files_that_exist() -> None:
    """Each file and folder that CONTRIBUTING.md names is there, and each package is on the map."""
    text = PAGES["CONTRIBUTING.md"]
    named = set(re.findall(r"`((?:wds_real|tests|scripts|docs)/[\w/.]*)`", text))
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()
    assert {f"wds_real/{path.parent.name}/" for path in Path(wds_real.__file__).parent.glob("*/__init__.py")} <= named


def test_the_citation_is_of_this_version() -> None:
    """CITATION.cff is YAML with the fields that version 1.2.0 of its format requires, and names this version."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", wds_real.__version__)
    assert citation["license"] == "Apache-2.0"
