"""Plots: the option ``--plot``, and writing figures. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wds_real.cli.options import local_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from wds_real.explore.figures import Figure

__all__ = ["plot_option", "write_figure"]


def plot_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option ``--plot``; the command gets the path as `plot`."""
    return click.option(
        "--plot",
        metavar="FILE",
        callback=local_path,
        help=f"Also draw {what}, to a .png, .jpg, .svg or .pdf file.",
    )


def write_figure(path: str, draw: Callable[[], Figure]) -> Figure:
    """Write the figure that `draw` makes to a file, and return it.

    Raises:
        click.UsageError: matplotlib is not installed.
        PlanError: the figure cannot be written.
    """
    try:
        from wds_real.explore.figures import save_figure

        figure = draw()
    except ImportError as error:
        raise click.UsageError(
            f"drawing needs matplotlib ({error}). Install it: pip install 'wds_real[plot]'."
        ) from error
    save_figure(figure, path)
    return figure
