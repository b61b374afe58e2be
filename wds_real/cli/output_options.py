"""The options for the output of an evaluation, and for independent ranks."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from wds_real.cli.console import speak_for_rank
from wds_real.cli.options import parse_storage_options, path_or_url
from wds_real.errors import StoreError
from wds_real.storage.url import is_url, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from wds_real.data.launchers import World
    from wds_real.scoring.run.place import OutputPlace

__all__ = ["OutputOptions", "kept_in", "output_errors", "output_option_option", "output_options", "place_of_output"]

output_option_option = click.option(
    "--output-option",
    "storage",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parse_storage_options,
    help="Storage option of the output's URL; repeatable.  [default: --storage-option, if ROOT is a URL of the same "
    "kind]",
)
_OPTIONS = (
    click.option(
        "-o",
        "--output",
        metavar="DIR|URL",
        callback=path_or_url,
        help="Folder, or s3://, gs:// or az:// URL, for result.json, predictions.csv and a record of each finished "
        "batch. The same command resumes from the records.",
    ),
    output_option_option,
    click.option(
        "--save-every",
        "save_every_s",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="At a URL, finished batches are saved together, at least this often. A kill loses those not yet saved.",
    ),
    click.option(
        "--independent",
        is_flag=True,
        help="Evaluate only this rank's share, without waiting for other ranks. Rank and world size come from the "
        "variables of SLURM arrays, AWS Batch arrays, SkyPilot and others; Kubernetes Indexed Jobs need --world-size. "
        "All ranks need the same --output; the last one to end writes the result.",
    ),
    click.option("--rank", type=click.IntRange(min=0), help="This rank's number, from 0 on; implies --independent."),
    click.option("--world-size", type=click.IntRange(min=1), help="Number of ranks; implies --independent."),
    click.option(
        "--steal",
        is_flag=True,
        help="With --independent: after its own share, do batches of other ranks that are not recorded yet.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """The values of the options that `output_options` adds."""

    output: str | None
    storage: dict[str, str]
    save_every_s: float
    independent: bool
    rank: int | None
    world_size: int | None
    steal: bool

    @property
    def is_independent(self) -> bool:
        """Whether this rank evaluates its share without communicating with the others."""
        return self.independent or self.rank is not None or self.world_size is not None

    def independent_world(self) -> World | None:
        """Return the rank of an independent process, and make it print its own output; None if ranks work together.

        Raises:
            click.UsageError: options are missing.
            PlanError: the rank is impossible, or no launcher sets it.
        """
        if not self.is_independent:
            if self.steal:
                raise click.UsageError(
                    "--steal is for independent ranks: add --independent, or --rank and --world-size."
                )
            return None
        if self.output is None:
            raise click.UsageError("independent ranks need --output, the same one for all of them.")
        from wds_real.data.launchers import independent_world

        world = independent_world(rank=self.rank, world_size=self.world_size)
        speak_for_rank(world)
        return world

    def place(self, root: str, root_options: Mapping[str, str]) -> OutputPlace | None:
        """Return the place of --output, checked; None without it.

        Raises:
            PredictionsError: it is a folder that cannot be written to.
            StoreError: it is a URL that is not valid, or an object store that denies access or is not there.
        """
        if self.output is None:
            return None
        with output_errors(self.output, "--output "):
            place = place_of_output(self.output, self.storage, root, root_options)
            place.check()
        return place


def place_of_output(
    output: str, options: Mapping[str, str], root: str | None, root_options: Mapping[str, str]
) -> OutputPlace:
    """Return the place of an output; without options of its own, it uses those of ROOT if both have the same scheme.

    Raises:
        click.UsageError: options are given for a folder.
    """
    from wds_real.scoring.run.place import OutputPlace

    if options and not is_url(output):
        raise click.UsageError(f"--output-option is for URLs; {output} is a folder.")
    if not options and (root is None or _scheme(root) == _scheme(output)):
        options = root_options
    return OutputPlace(output, options if is_url(output) else None)


@contextmanager
def output_errors(output: str, option: str = "") -> Iterator[None]:
    """Make errors of the output's store name the output, and --output-option in place of --storage-option.

    Args:
        output: Path or URL as given.
        option: The option that gave it, as the start of the message.
    """
    try:
        yield
    except StoreError as error:
        where, text = redact_url(output), str(error).replace("--storage-option", "--output-option")
        raise type(error)(f"{option}{text if where in text else f'{where}: {text}'}") from error


def kept_in(place: OutputPlace) -> str:
    """Return what to print when a signal stops a run; at a URL, the last finished batches may be unsaved."""
    batches = "finished batches are saved in" if place.folder is not None else "saved batches are in"
    return f"the {batches} {place}; run the same command to resume"


def _scheme(place: str) -> str:
    return place.partition("://")[0].lower() if is_url(place) else ""


def output_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the output to a command, which gets them as `output`."""
    names = [field.name for field in fields(OutputOptions)]

    @functools.wraps(function)
    def command(*arguments: Any, **others: Any) -> None:
        given = OutputOptions(**{name: others.pop(name) for name in names})
        function(*arguments, output=given, **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
