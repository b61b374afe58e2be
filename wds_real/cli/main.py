"""``wds-real``: the list of commands, and the exit code and one-line message of each error."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from typing import NoReturn

import click

from wds_real import __version__
from wds_real.cli.console import PrintableFormatter, is_main_rank, print_message, print_usage_error, rank_prefix
from wds_real.data.distributed import launched_world
from wds_real.errors import CoverageError, ManifestError, PlanError, WdsRealError

_COMMANDS = {
    "compare": "Compare two prediction files, image by image.",
    "demo": "Generate a small data set, evaluate it, and check every count.",
    "eval": "Evaluate a model, on one process or under torchrun.",
    "index": "Make a data set of existing WebDataset shards, in place.",
    "info": "Show what a data set holds, or the labels of single images.",
    "merge": "Compute result and predictions from the records of a run.",
    "pack": "Pack the validation images and their labels into shards.",
    "score": "Score a prediction file; no model, no images.",
    "verify": "Check a packed data set.",
}
_ON_EVERY_RANK = {"eval"}
# Every rank finds these errors at the same place, so only rank 0 reports them.
_SAME_ON_ALL_RANKS = (CoverageError, ManifestError, PlanError)


class _LazyGroup(click.Group):
    """Imports a command's module when the command is run: ``--help`` imports nothing but this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"wds_real.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wds-real")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Evaluate image classifiers on ImageNet with ReaL labels.

    Exit codes: 0 success, 1 failure, 2 wrong usage, 3 images missing or counted twice, 4 damaged data, 130 interrupted.
    """
    if ctx.invoked_subcommand not in _ON_EVERY_RANK and not is_main_rank():
        ctx.exit(0)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may be outside the terminal's encoding
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("wds-real: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        launched_world()
    except PlanError as error:
        print_message(f"error: {error}")
        sys.exit(error.exit_code)
    try:
        status = cli.main(arguments, prog_name="wds-real", standalone_mode=False)
    except click.ClickException as error:
        if is_main_rank():
            print_usage_error(error)
        sys.exit(error.exit_code)
    except WdsRealError as error:
        if is_main_rank() or not isinstance(error, _SAME_ON_ALL_RANKS):
            print_message(f"{rank_prefix()}error: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print_message(f"{rank_prefix()}interrupted")
        sys.exit(130)
    sys.exit(status or 0)
