"""``wds-real``: the list of commands, and the exit code and one-line message of each error."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from typing import NoReturn

import click

from wds_real import __version__
from wds_real.cli.console import (
    LogHandler,
    print_message,
    print_usage_error,
    rank_prefix,
    speak_for_rank,
)
from wds_real.cli.failures import describe, print_traceback
from wds_real.cli.ranks import wait_for_rank_0, wait_for_reports
from wds_real.cli.signals import SignalHandling
from wds_real.data.launchers import launched_world, way_to_run_alone
from wds_real.errors import PlanError, PredictionsError, StoreError, WdsRealError

_DATA_SETS = {
    "card": "Print the data card of a data set: Markdown, Hugging Face, Croissant or BibTeX.",
    "cat": "Write an image or its label to stdout.",
    "export": "Write the side files by which timm, DALI and others read the shards.",
    "index": "Index existing WebDataset shards as a data set, in place.",
    "info": "Show what a data set holds, or the labels of single images.",
    "ls": "List the images of a data set, or those for which a condition holds.",
    "pack": "Pack the validation images and their labels into shards.",
    "show": "Draw images with their labels and predictions.",
    "verify": "Check a packed data set.",
}
_MODELS = {
    "compare": "Compare two or more models, image by image.",
    "demo": "Generate a small data set, evaluate it, and check every count.",
    "diagnose": "Say which known mistake explains an absurd accuracy.",
    "eval": "Evaluate one model or many, on one process or under torchrun.",
    "explore": "Make a page to look at images, labels and predictions.",
    "merge": "Compute result and predictions from the records of a run.",
    "reference": "List the published results of models.",
    "report": "Print a table of models, one row per result.",
    "score": "Score a prediction file; no model, no images.",
}
_GROUPS = {"Data sets": _DATA_SETS, "Models and results": _MODELS}
_TOGETHER = {"eval"}
# Commands that write. The others only read, so each rank runs them by itself.
_ON_RANK_0 = {"demo", "explore", "export", "index", "merge", "pack"}


class _LazyGroup(click.Group):
    """Imports a command's module only when the command is run: ``wds-real --help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_DATA_SETS | _MODELS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _DATA_SETS | _MODELS:
            return None
        package = "wds_real.cli.commands.datasets" if cmd_name in _DATA_SETS else "wds_real.cli.commands"
        command: click.Command = importlib.import_module(f"{package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        width = max(map(len, _DATA_SETS | _MODELS))  # both groups with the same columns
        for heading, commands in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in sorted(commands.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wds-real")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Evaluate image classifiers on ImageNet with ReaL labels.

    Exit codes: 0 success, 1 failure, 2 wrong usage, 3 images missing or counted twice, 4 damaged data, 130 interrupted
    (SIGINT), 143 terminated (SIGTERM).
    """
    world, name = launched_world(), ctx.invoked_subcommand
    if not world.rank or name in _TOGETHER:
        return
    if name in _ON_RANK_0:
        print_message(
            f"rank {world.rank} of {world.world_size}: nothing done, {name} runs on rank 0. To run it here, "
            f"{way_to_run_alone()}."
        )
        ctx.exit(0)
    print_message(f"rank {world.rank} of {world.world_size}: {name} runs on each rank by itself")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    logging.basicConfig(level=logging.WARNING, handlers=[LogHandler()])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may be outside the terminal's encoding
    with SignalHandling() as signals:
        try:
            status = _run(sys.argv[1:] if arguments is None else arguments, signals)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 -- unexpected errors are one line too
            status = _failed(error, signals)
    sys.exit(status)


def _run(arguments: list[str], signals: SignalHandling) -> int:
    """Run a command and return its exit code; report its expected errors."""
    speak_for_rank(None)
    try:
        launched_world()
    except PlanError as error:
        print_message(f"error: {error}")
        return error.exit_code
    if "_WDS_REAL_COMPLETE" in os.environ:  # a shell asks for completions
        cli.main(arguments, prog_name="wds-real")
    context: click.Context | None = None
    try:
        with cli.make_context("wds-real", list(arguments), obj=signals) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.ClickException as error:
        if context is not None and context.invoked_subcommand in _TOGETHER:  # all ranks have the same arguments
            wait_for_rank_0(error.exit_code)
        print_usage_error(error)
        return error.exit_code
    except WdsRealError as error:
        if signals.received is not None:
            raise
        print_traceback(error)
        print_message(f"{rank_prefix()}error: {error}")
        if error.reported_elsewhere:
            wait_for_reports(error.exit_code)
        return error.exit_code


def _failed(error: BaseException, signals: SignalHandling) -> int:
    """Report a signal, or an error that no command expects; return the exit code."""
    if signals.received is not None or isinstance(error, KeyboardInterrupt):
        if isinstance(error, (PredictionsError, StoreError)):  # the last records were not saved
            print_message(f"{rank_prefix()}error: {error}")
        signals.say()  # other errors may follow from the interruption
        return signals.exit_code
    print_traceback(error)
    print_message(f"{rank_prefix()}error: {describe(error)}")
    return 1
