"""``wds-real report``: a table of models, one row per result."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wds_real.cli.console import counted, print_lines, print_message
from wds_real.cli.options import local_path, refuse_unused_options, storage_option
from wds_real.cli.plots import plot_option, write_figure
from wds_real.errors import PredictionsError

if TYPE_CHECKING:
    from wds_real.explore.figures import Figure
    from wds_real.scoring.ranking.formats import TableFormat
    from wds_real.scoring.ranking.rank import Ranking

_FORMAT_OF_SUFFIX: dict[str, TableFormat] = {
    ".md": "md", ".csv": "csv", ".html": "html", ".htm": "html", ".tex": "tex", ".txt": "text",
}  # fmt: skip


@click.command("report")
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    callback=local_path,
    help="Write the table to FILE; its suffix (.md, .csv, .html, .tex or .txt) chooses the format.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "md", "csv", "html", "tex", "timm", "timm-real"]),
    help="Format of the table; timm and timm-real have the columns of timm's result files.  [default: by --output, or "
    "text]",
)
@plot_option("original against ReaL accuracy, with intervals")
@storage_option
def command(
    results: tuple[str, ...],
    output: str | None,
    form: TableFormat | None,
    plot: str | None,
    storage_options: dict[str, str],
) -> None:
    """Print one table of all RESULTs: --output folders of eval, of one or many models, result.json or prediction files.

    RESULTs are paths or URLs. In the last part of a URL, * stands for any text: "s3://lab/runs/resnet*".

    Models are ordered by ReaL top-1. The range after a rank, as in 4 (3-5), holds the ranks that chance allows. Models
    with predictions are compared image by image. All results must be of the same images and labels.
    """
    from wds_real.scoring.ranking.formats import format_ranking
    from wds_real.scoring.ranking.rank import rank_models
    from wds_real.scoring.ranking.rows import find_results, read_model_row

    refuse_unused_options(storage_options, *results)
    form = form or _format_of(output)
    found, failures = find_results(results, storage_options=storage_options)
    ranking = rank_models([read_model_row(place, storage_options=storage_options) for place in found])
    for failure in failures:
        print_message(f"not in the table: {failure}")
    table = format_ranking(ranking, form)
    if plot is not None:
        write_figure(plot, functools.partial(_drawn, ranking))
    if output is None:
        print_lines(*table.rstrip("\n").split("\n"))
        return
    try:
        Path(output).write_text(table, encoding="utf-8")
    except OSError as error:
        raise PredictionsError(f"{output}: cannot be written: {error.strerror}. Choose another --output.") from error
    print_message(f"wrote {output}: {counted(len(ranking.models), 'model')}")


def _drawn(ranking: Ranking) -> Figure:
    from wds_real.explore.plots import plot_ranking

    return plot_ranking(ranking)


def _format_of(output: str | None) -> TableFormat:
    if output is None:
        return "text"
    suffix = Path(output).suffix.lower()
    if suffix not in _FORMAT_OF_SUFFIX:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise click.UsageError(f"--output {output}: the suffix names no format. Use one of {known}, or --format.")
    return _FORMAT_OF_SUFFIX[suffix]
