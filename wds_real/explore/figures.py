"""Write figures to files."""

from __future__ import annotations

from pathlib import PurePath

from matplotlib.figure import Figure

from wds_real.errors import PlanError

__all__ = ["Figure", "save_figure"]  # Figure, so that annotations elsewhere need not import matplotlib

_FORMATS = ("png", "jpg", "jpeg", "svg", "pdf")


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure to a file, whose ending gives the format; the same figure gives the same bytes.

    Raises:
        PlanError: the ending is not png, jpg, jpeg, svg or pdf, or the file cannot be written.
    """
    ending = PurePath(path).suffix.removeprefix(".").lower()
    if ending not in _FORMATS:
        raise PlanError(f"{path}: expected a file that ends in {', '.join(f'.{name}' for name in _FORMATS)}.")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    try:
        figure.savefig(path, format=ending, metadata=undated)
    except OSError as error:
        raise PlanError(f"{path}: cannot be written: {error.strerror or error}.") from error
