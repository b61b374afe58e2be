"""``wds-real compare``: the paired differences of two or more models."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import print_json, print_lines
from wds_real.cli.options import (
    ORDER_CHOICE,
    export_classes_option,
    json_option,
    local_path,
    prediction_options,
    refuse_unused_options,
)
from wds_real.cli.plots import plot_option, write_figure
from wds_real.scoring.reading.places import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from wds_real.cli.options import PredictionOptions
    from wds_real.explore.figures import Figure
    from wds_real.scoring.comparison import Comparison
    from wds_real.scoring.ranking.pairwise import PairwiseComparison


@click.command("compare")
@click.argument("models", nargs=-1, required=True, metavar="A B [C ...]")
@click.option(
    "--against",
    type=click.Choice(["real", "original"]),
    default="real",
    show_default=True,
    help="Labels to compare by: ReaL or original.",
)
@prediction_options
@click.option("--name-column-b", metavar="NAME", help="--name-column for file B.  [default: the same]")
@click.option("--class-column-b", metavar="NAME", help="--class-column for file B.  [default: the same]")
@click.option("--order-b", type=ORDER_CHOICE, help="--order for file B.  [default: the same]")
@click.option(
    "--export-flips",
    metavar="FILE",
    callback=local_path,
    help="Write the images that only one of two models gets right to FILE, a .csv or .parquet.",
)
@export_classes_option
@plot_option("where two models differ, by image and class, or with more models the difference of each pair")
@json_option
def command(
    models: tuple[str, ...],
    against: Literal["real", "original"],
    options: PredictionOptions,
    name_column_b: str | None,
    class_column_b: str | None,
    order_b: str | None,
    export_flips: str | None,
    export_classes: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Compare prediction files or --output folders of eval on the images that are in all of them.

    For two models, the output has the paired difference of the accuracies, McNemar's test, and how many images only one
    of the two gets right. A and B may be two columns of one file: give --class-column and --class-column-b. For more
    models, it has the difference of each pair, with p-values corrected for the number of pairs (Holm), and names the
    pairs that cannot be told apart.
    """
    from wds_real.scoring.comparison import classes_compared, compare, flip_columns
    from wds_real.scoring.export import write_table

    refuse_unused_options(options.storage_options, *models)
    paths = _results(models, options.storage_options)
    if len(paths) < 2:
        raise click.UsageError("one model is no comparison: give two or more, or a folder with the results of several.")
    if len(paths) > 2:
        if {name_column_b, class_column_b, order_b, export_flips, export_classes} != {None}:
            raise click.UsageError("the options for file B, --export-flips and --export-classes are for two files.")
        _compare_many(paths, against, options, plot=plot, as_json=as_json)
        return
    a, b = paths
    read_a = options.read(a)
    read_b = options.read(b, name_column=name_column_b, class_column=class_column_b, order=order_b)
    comparison = compare(read_a, read_b, against=against, labels=options.labels(), threshold=options.threshold)
    if plot is not None:
        write_figure(plot, functools.partial(_drawn, comparison, _names(paths)))
    if export_flips is not None:
        write_table(export_flips, flip_columns(comparison))
    if export_classes is not None:
        write_table(export_classes, classes_compared(comparison))
    if as_json:
        print_json({"files": {"a": shown(a), "b": shown(b)}, **comparison.as_dict()})
        return
    for title, path, read in (("A", a, read_a), ("B", b, read_b)):
        print_lines(f"{title} {shown(path)}", *(f" note: {note}" for note in read.notes))
    print_lines(*str(comparison).split("\n"))


def _results(models: Sequence[str], storage_options: Mapping[str, str]) -> list[str]:
    """Return the files and folders; a folder of several runs is replaced by the folders in it."""
    from wds_real.scoring.ranking.rows import find_results

    return [str(place) for place in find_results(models, storage_options=storage_options)[0]]


def _compare_many(
    paths: Sequence[str],
    against: Literal["real", "original"],
    options: PredictionOptions,
    *,
    plot: str | None,
    as_json: bool,
) -> None:
    from wds_real.scoring.ranking.pairwise import compare_many

    read = {name: options.read(path) for name, path in zip(_names(paths), paths, strict=True)}
    comparison = compare_many(read, against=against, labels=options.labels(), threshold=options.threshold)
    if plot is not None:
        write_figure(plot, functools.partial(_drawn_pairs, comparison))
    if as_json:
        files = dict(zip(read, map(shown, paths), strict=True))
        print_json({"files": files, **comparison.as_dict()})
        return
    print_lines(*(f"{name} note: {note}" for name, one in read.items() for note in one.notes))
    print_lines(*str(comparison).split("\n"))


def _drawn(comparison: Comparison, names: Sequence[str]) -> Figure:
    from wds_real.explore.plots import plot_comparison

    return plot_comparison(comparison, (names[0], names[1]))


def _drawn_pairs(comparison: PairwiseComparison) -> Figure:
    from wds_real.explore.plots import plot_pairs

    return plot_pairs(comparison)


def _names(paths: Sequence[str]) -> list[str]:
    """Return short names: the last part of each path without its suffix, or the whole path where that is not unique."""
    from wds_real.scoring.reading.folders import model_name

    short = [model_name(path) for path in paths]
    times = Counter(short)
    named = [name if name and times[name] == 1 else shown(path) for path, name in zip(paths, short, strict=True)]
    return [name if named.index(name) == at else f"{name} ({at + 1})" for at, name in enumerate(named)]
