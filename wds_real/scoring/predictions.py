"""The prediction file: the five best classes of each image, in key order, and their probabilities.

Written as CSV, NPZ or Parquet. Runs without torch.
"""

from __future__ import annotations

import bisect
import csv
import importlib
import io
import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wds_real.data.notebook import rows_table
from wds_real.errors import PredictionsError
from wds_real.labels import classes
from wds_real.labels.file_names import sample_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["PROBABILITY_COLUMNS", "RANKED_COLUMNS", "TOP", "Format", "Predictions", "dataframe", "parquet_module"]

TOP = 5
_SHOWN_ROWS = 5
RANKED_COLUMNS = tuple(f"top{place + 1}" for place in range(TOP))
PROBABILITY_COLUMNS = tuple(f"prob{place + 1}" for place in range(TOP))
Format = Literal["csv", "npz", "parquet"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predictions:
    """The predicted classes of images; a mapping from names to classes, best first.

    >>> few = Predictions(("ILSVRC2012_val_00000002",), np.array([[795, 970, -1, -1, -1]]), np.full((1, 5), np.nan))
    >>> few["ILSVRC2012_val_00000002"], few["ILSVRC2012_val_00000002.JPEG"], "ILSVRC2012_val_00000003" in few
    ((795, 970), (795, 970), False)

    Attributes:
        keys: N strings, ascending.
        classes: int64 (N, 5), class indices 0..999, best first; -1 where the model gave fewer.
        probabilities: float32 (N, 5), of these classes; NaN where unknown.
        source: The file they were read from; "" if there is none.
        origin: Which columns gave names and classes, as text to print.
        notes: What is suspicious about the predictions, as sentences to print.
    """

    keys: tuple[str, ...]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    source: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self.keys)

    def __contains__(self, name: object) -> bool:
        """Return whether an image is predicted, by its key or file name."""
        return isinstance(name, (str, bytes, PurePath)) and self._row(name) is not None

    def __getitem__(self, name: str | bytes | PurePath) -> tuple[int, ...]:
        """Return the classes of one image, best first, by its key or any spelling of its file name.

        Raises:
            KeyError: there is no prediction of this image.
        """
        row = self._row(name)
        if row is None:
            raise KeyError(f"{name!s} is not among the {len(self.keys):,} predictions.")
        return tuple(label for label in self.classes[row].tolist() if label >= 0)

    def __repr__(self) -> str:
        shown = f"{self.keys[0]} ... {self.keys[-1]}" if self.keys else "none"
        return f"<Predictions of {len(self.keys):,} images, {shown}{', from ' * bool(self.source)}{self.source}>"

    def _repr_html_(self) -> str:
        rows = [
            (key, *(f"{label} {classes()[label].name}" if label >= 0 else "" for label in answers))
            for key, answers in zip(self.keys[:_SHOWN_ROWS], self.classes[:_SHOWN_ROWS].tolist(), strict=True)
        ]
        return rows_table(f"{self!r}"[1:-1], ("key", *RANKED_COLUMNS), rows)

    def as_dataframe(self) -> pd.DataFrame:
        """Return file names, classes and probabilities, one row an image (needs pandas).

        Raises:
            PredictionsError: pandas is not installed.
        """
        return dataframe(self._columns())

    def encode(self, form: Format = "csv") -> bytes:
        """Return the bytes of the prediction file: a pure function of the content.

        Raises:
            PredictionsError: Parquet is asked for, and pyarrow is not installed.
        """
        if form == "npz":
            file = io.BytesIO()
            np.savez(file, key=np.array(self.keys), classes=self.classes, probabilities=self.probabilities)
            return file.getvalue()
        return self._parquet() if form == "parquet" else self._csv()

    def _csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file_name", *RANKED_COLUMNS, *PROBABILITY_COLUMNS))
        for key, row, probabilities in zip(self.keys, self.classes.tolist(), self.probabilities.tolist(), strict=True):
            formatted = ("" if math.isnan(value) else f"{value:.9g}" for value in probabilities)
            writer.writerow((f"{key}.JPEG", *("" if value < 0 else value for value in row), *formatted))
        return text.getvalue().encode("utf-8")

    def _parquet(self) -> bytes:
        parquet, file = parquet_module(), io.BytesIO()
        parquet.write_table(importlib.import_module("pyarrow").table(self._columns()), file)
        return file.getvalue()

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"file_name": [f"{key}.JPEG" for key in self.keys]}
        columns |= {name: self.classes[:, place] for place, name in enumerate(RANKED_COLUMNS)}
        return columns | {name: self.probabilities[:, place] for place, name in enumerate(PROBABILITY_COLUMNS)}

    def _row(self, name: str | bytes | PurePath) -> int | None:
        key = sample_key(name)
        row = bisect.bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else None


def parquet_module() -> Any:  # noqa: ANN401 -- a module of an optional package
    """Return ``pyarrow.parquet``.

    Raises:
        PredictionsError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise PredictionsError("Parquet needs pyarrow. Install it: pip install pyarrow. Or use CSV or NPZ.") from error


def dataframe(columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> pd.DataFrame:
    """Return columns as a DataFrame of pandas.

    Raises:
        PredictionsError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise PredictionsError("a DataFrame needs pandas. Install it: pip install pandas.") from error
    return pd.DataFrame(dict(columns))
