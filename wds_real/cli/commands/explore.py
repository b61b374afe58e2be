"""``wds-real explore``: one page to look at images, labels and predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import counted, print_message
from wds_real.cli.options import local_path, prediction_options, refuse_unused_options, url_options
from wds_real.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wds_real.cli.options import PredictionOptions
    from wds_real.data.dataset import Dataset
    from wds_real.explore.page.content import Content
    from wds_real.scoring.predictions import Predictions

_PAGE_NAME = "index.html"
_MARK = b"<title>wds-real explorer</title>"
_HEAD_BYTES = 4096
_DEFAULT_PORT = 8000


class _SeveralValues(click.Command):
    """Lets several files follow one --predictions, which click does not allow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeated(args))


def _repeated(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with --predictions before each of its files.

    >>> _repeated(["shards", "--predictions", "a.csv", "b.csv", "-o", "page"])
    ['shards', '--predictions', 'a.csv', '--predictions', 'b.csv', '-o', 'page']
    """
    found, follows, first = list[str](), False, False
    for argument in arguments:
        if argument.startswith("-"):
            follows = first = argument == "--predictions"
        elif follows and not first:
            found.append("--predictions")
        else:
            first = False
        found.append(argument)
    return found


@click.command("explore", cls=_SeveralValues)
@click.argument("root", required=False)
@click.option("--predictions", "files", multiple=True, metavar="FILE...", help="Answers of models: one or more files.")
@click.option(
    "-o", "--output", metavar="DIR", callback=local_path, help=f"Write the page to {_PAGE_NAME} in this folder."
)
@click.option(
    "--serve",
    "port",
    is_flag=False,
    flag_value=_DEFAULT_PORT,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help=f"Serve the page and the shards on this machine until Ctrl-C.  [default port: {_DEFAULT_PORT}]",
)
@click.option(
    "--shards-url",
    metavar="URL",
    help="Where browsers find the shards: an https URL, or a path relative to the page.  [default: by ROOT]",
)
@click.option("--allow-partial", is_flag=True, help="Accept prediction files that lack some of the images.")
@prediction_options
def command(
    root: str | None,
    files: tuple[str, ...],
    output: str | None,
    port: int | None,
    shards_url: str | None,
    allow_partial: bool,
    options: PredictionOptions,
) -> None:
    """Make one page to look at the images of ROOT, their labels, and the answers of models.

    The page is a single file that needs no server and loads nothing from elsewhere. Opened from disk, it reads images
    out of the shards that you choose there; from a web server or a bucket, by range requests. Without ROOT it shows
    labels and predictions of all validation images, without the images.
    """
    from wds_real.explore.page.build import build_page
    from wds_real.explore.page.content import answers_of
    from wds_real.explore.page.server import SHARDS_PATH
    from wds_real.explore.page.web_address import web_address

    _check(root, output, port, shards_url, options)
    refuse_unused_options(options.storage_options, root, *files)
    dataset = None if root is None else _open(root, options.storage_options)
    content = _content(dataset, options)
    predictions = _read(files, options)
    content = replace(content, answers=answers_of(content, predictions, allow_partial=allow_partial))
    if output is not None:
        if dataset is not None and shards_url is None:
            shards_url = web_address(dataset.root, output, options.storage_options)
        _write(output, build_page(content, shards_url=shards_url), content)
    if port is not None:
        _serve(build_page(content, shards_url=None if dataset is None else SHARDS_PATH), dataset, port)


def _check(
    root: str | None, output: str | None, port: int | None, shards_url: str | None, options: PredictionOptions
) -> None:
    if output is None and port is None:
        raise click.UsageError("nothing to do. Write the page with -o DIR, or show it with --serve.")
    if root is not None and options.real_json is not None:
        raise click.UsageError("--real-json is for a page without ROOT: a data set has its own labels.")
    if shards_url is not None and (root is None or output is None):
        raise click.UsageError("--shards-url is for a page that is written: give ROOT and -o DIR.")


def _open(root: str, storage_options: Mapping[str, str]) -> Dataset:
    from wds_real.data.dataset import open_dataset

    return open_dataset(root, storage_options=url_options(root, storage_options))


def _content(dataset: Dataset | None, options: PredictionOptions) -> Content:
    """Return what is to be shown, with the threshold that the page starts with."""
    from wds_real.explore.page.content import Content
    from wds_real.labels import at_threshold

    content = Content.of_labels(options.labels()) if dataset is None else Content.of_dataset(dataset)
    if options.threshold is None:
        return content
    at_threshold(options.threshold)  # raises if the threshold is not valid
    return replace(content, threshold=round(options.threshold * 1000))


def _read(files: Sequence[str], options: PredictionOptions) -> Mapping[str, Predictions]:
    """Return the predictions in files or --output folders by the models' names; equal names get numbers."""
    from wds_real.scoring.reading.folders import model_name

    found: dict[str, Predictions] = {}
    for file in files:
        stem = model_name(file) or file
        name, number = stem, 2
        while name in found:
            name, number = f"{stem} ({number})", number + 1
        found[name] = options.read(file)
    return found


def _write(folder: str, page: bytes, content: Content) -> None:
    """Write the page; an existing file that is not such a page is not replaced."""
    from wds_real.storage.store import open_store

    path = Path(folder) / _PAGE_NAME
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with path.open("rb") as file:
            is_own = _MARK in file.read(_HEAD_BYTES)
    except FileNotFoundError:
        is_own = True
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}. Choose another --output.") from error
    if not is_own:
        raise StoreError(f"{path}: exists, and is not a page of wds-real. Choose another --output.")
    open_store(folder).put(_PAGE_NAME, page)
    size = f"{len(page) / 1e6:.1f} MB"
    models = counted(len(content.answers), "model")
    print_message(f"wrote {path}: {counted(len(content.keys), 'image')}, {models}, {size}")


def _serve(page: bytes, dataset: Dataset | None, port: int) -> None:
    import threading

    from wds_real.cli.signals import kept_if_stopped
    from wds_real.explore.page.server import Site, serve

    shards = None if dataset is None else dataset.reader.shards
    sizes = {} if dataset is None else {shard.name: shard.num_bytes for shard in dataset.manifest.shards}
    with serve(Site(page, shards, sizes), port) as url, kept_if_stopped("the page is no longer served"):
        print_message(f"serving {url} on this machine only; Ctrl-C ends it")
        threading.Event().wait()
