"""A data set as a pandas DataFrame, which notebooks show with thumbnails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from wds_real.data.notebook import image_tag, rows_table
from wds_real.errors import ShardError
from wds_real.image.decode import DecodeError
from wds_real.image.thumbnail import thumbnail_jpeg
from wds_real.labels import classes

if TYPE_CHECKING:
    from wds_real.data.dataset import Dataset

__all__ = ["SampleFrame", "as_dataframe"]

_MOST_ROWS = 20  # that are shown with thumbnails
_THUMBNAIL_SIDE = 96


class SampleFrame(pd.DataFrame):  # type: ignore[misc]  # pandas is untyped here
    """A DataFrame of `as_dataframe`, or rows of it; its images are read when a notebook shows it."""

    _metadata: ClassVar[list[str]] = ["_dataset"]
    _dataset: Dataset | None = None

    @property
    def _constructor(self) -> type[SampleFrame]:
        return SampleFrame

    def _repr_html_(self) -> str:
        """Return the first rows with thumbnails; a table without them where columns are missing that they need."""
        if self._dataset is None or not {"key", "original_label", "real_label"} <= {*self.columns}:
            return str(super()._repr_html_())
        shown = self.head(_MOST_ROWS)
        title = f"{len(self):,} samples" if len(shown) == len(self) else f"{len(shown)} of {len(self):,} samples"
        rows = [
            (_thumbnail(self._dataset, str(key)), *map(_text, shown, values))
            for key, values in zip(shown["key"], shown.itertuples(index=False), strict=True)
        ]
        return rows_table(title, ["image", *map(str, shown)], rows)


def as_dataframe(dataset: Dataset) -> SampleFrame:
    """Return keys, labels and sizes, one row a sample; no image is read until a notebook shows the frame.

    Args:
        dataset: From `wds_real.open_dataset`.

    Returns:
        A DataFrame with the columns of `wds_real.Dataset.as_dataframe`. Rows that are chosen from it, as by
        ``frame[frame.width > 500]``, show thumbnails too.
    """
    frame = SampleFrame(dataset.as_dataframe())
    frame._dataset = dataset  # noqa: SLF001 -- pandas keeps it for the rows that are chosen, see `_metadata`
    return frame


def _thumbnail(dataset: Dataset, key: str) -> str:
    """Return the image, or why it cannot be shown, so that the table of a damaged set is shown too."""
    try:
        row = dataset.index.keys.index(key)
        return image_tag(thumbnail_jpeg(dataset.reader.read(row), _THUMBNAIL_SIDE), key)
    except (DecodeError, ShardError, ValueError) as error:
        return str(error)


def _text(column: Any, value: Any) -> str:  # noqa: ANN401 -- columns of pandas
    if column == "original_label":
        return f"{value} {classes()[int(value)].name}"
    if column == "real_label":
        return ", ".join(f"{label} {classes()[label].name}" for label in value) or "none"
    return str(value)
