"""Options that several commands share."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from wds_real.errors import StoreError
from wds_real.storage.url import is_url, redact_url, refuse_broken_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.labels import Labels
    from wds_real.scoring.predictions import Predictions
    from wds_real.storage.cache import ByteCache

MAX_THREADS = 1024  # of --jobs too; more than a machine has cores
MAX_BATCH_SIZE = 65_536

__all__ = [
    "MAX_BATCH_SIZE",
    "MAX_THREADS",
    "ORDER_CHOICE",
    "PredictionOptions",
    "cache_options",
    "export_classes_option",
    "json_option",
    "local_path",
    "open_cache",
    "parse_storage_options",
    "path_or_url",
    "per_class_option",
    "prediction_options",
    "quiet_option",
    "real_json_option",
    "refuse_unused_options",
    "storage_option",
    "url_options",
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_Function = TypeVar("_Function", bound="Callable[..., Any]")


def parse_storage_options(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the values of a repeatable NAME=VALUE option as a dictionary."""
    del ctx, parameter
    for value in values:
        if "=" not in value:  # the value may be a secret, so the message does not repeat it
            raise click.BadParameter("expected NAME=VALUE, such as region=eu-west-1.")
    return {name: value for name, _, value in (value.partition("=") for value in values)}


def _parse_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    del ctx, parameter
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter("expected a size such as 500MB or 20GiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


def local_path(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the value of an option or argument that is a path on this machine; a URL is a usage error."""
    del ctx, parameter
    if value is not None:
        if is_url(value):
            raise click.BadParameter(
                f"{redact_url(value)} is a URL, expected a path on this machine. Only data sets, predictions, results "
                "and the --output of eval and merge may be at URLs: copy other files with the tools of your store."
            )
        try:
            refuse_broken_url(value)
        except StoreError as error:
            raise click.BadParameter(str(error)) from error
    return value


def path_or_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the value of an option or argument that is a path or a URL; a malformed URL is a usage error."""
    del ctx, parameter
    if value is not None and not is_url(value):
        try:
            refuse_broken_url(value)
        except StoreError as error:
            raise click.BadParameter(str(error)) from error
    return value


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Print no progress on stderr, only warnings and errors."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")

per_class_option = click.option(
    "--per-class",
    is_flag=True,
    help="Also print ReaL accuracy for groups of images, and for the worst classes with their most common confusions.",
)

export_classes_option = click.option(
    "--export-classes",
    metavar="FILE",
    callback=local_path,
    help="Write the counts of each class to FILE, a .csv or .parquet.",
)

real_json_option = click.option(
    "--real-json",
    metavar="FILE",
    callback=local_path,
    help="ReaL labels in the format of real.json, to use instead of the bundled ones.",
)

ORDER_CHOICE = click.Choice(
    ["names", "keys", "imagefolder", "folders-as-text", "devkit-folders", "numbers-as-text", "reversed"]
)

storage_option = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parse_storage_options,
    help="For URLs: region=..., endpoint=..., profile=..., skip_signature=true (public buckets), ...; repeatable.",
)

_PREDICTION_OPTIONS = (
    real_json_option,
    click.option(
        "--threshold",
        type=float,
        help="Take ReaL labels from the published rater scores, with this threshold instead of the released 0.8.",
    ),
    click.option(
        "--name-column", metavar="NAME", help="Column of the file names or keys.  [default: found by its name]"
    ),
    click.option(
        "--class-column", metavar="NAME", help="Column of the predicted classes.  [default: found by its name]"
    ),
    click.option(
        "--order",
        type=ORDER_CHOICE,
        help="Order of the rows; names in the file are then ignored: keys (sorted file names), imagefolder (class "
        "folders, then file names), or one that `wds-real diagnose` printed.  [default: by the names, else detected]",
    ),
    storage_option,
)


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """How to read prediction files, and which labels to use: the values of `prediction_options`."""

    real_json: str | None
    threshold: float | None
    name_column: str | None
    class_column: str | None
    order: str | None = None
    class_map: str | None = None
    background: Literal["first", "last"] | None = None
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def read(
        self, path: str, *, name_column: str | None = None, class_column: str | None = None, order: str | None = None
    ) -> Predictions:
        """Return the predictions at a path or URL; columns and order given here override those of the options."""
        from wds_real.scoring.prediction_reader import read_predictions

        order = order or self.order
        return read_predictions(
            path,
            name_column=name_column or self.name_column,
            class_column=class_column or self.class_column,
            order=None if order == "names" else order,
            class_map=self.class_map,
            background=self.background,
            storage_options=self.storage_options,
        )

    def labels(self) -> Labels | None:
        """Return the labels of --real-json; None without it."""
        from wds_real.labels import load_real_json

        return None if self.real_json is None else load_real_json(self.real_json)


def prediction_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that read prediction files; the command gets them as `options`."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        real_json: str | None,
        threshold: float | None,
        name_column: str | None,
        class_column: str | None,
        order: str | None,
        storage_options: dict[str, str],
        **others: Any,
    ) -> None:
        if real_json is not None and threshold is not None:
            raise click.UsageError("--real-json and --threshold exclude each other: each chooses the ReaL labels.")
        options = PredictionOptions(
            real_json, threshold, name_column, class_column, order, storage_options=storage_options
        )
        function(*arguments, options=options, **others)

    for option in reversed(_PREDICTION_OPTIONS):
        command = option(command)
    return command


def cache_options(function: _Function) -> _Function:
    """Add --cache and --cache-size to a command."""
    size = click.option(
        "--cache-size",
        "cache_bytes",
        metavar="SIZE",
        callback=_parse_size,
        help="Largest size of the --cache folder.  [default: 16GiB]",
    )
    folder = click.option(
        "--cache",
        metavar="DIR",
        callback=local_path,
        help="Keep what is read from URLs in DIR; later runs read it there.",
    )
    return folder(size(function))


def open_cache(folder: str | None, max_bytes: int | None) -> ByteCache | None:
    """Return the cache in `folder`; None without --cache."""
    from wds_real.storage.cache import DEFAULT_MAX_BYTES, ByteCache

    return None if folder is None else ByteCache(Path(folder), DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)


def refuse_unused_options(options: Mapping[str, str], *places: str | None) -> None:
    """Raise click.UsageError if storage options are given and no place is a URL."""
    if options and not any(place is not None and is_url(place) for place in places):
        raise click.UsageError("--storage-option is for URLs, but no URL is given.")


def url_options(place: str, options: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return the storage options for `place`: None if it is a local path, which takes none."""
    return options if is_url(place) else None
