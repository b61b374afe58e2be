"""CSV, TSV and other tables as text, read row by row."""

from __future__ import annotations

import array
import csv
import itertools
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from wds_real.errors import PredictionsError
from wds_real.labels.class_names import NUM_CLASSES, index_of_wnid
from wds_real.scoring.reading.spellings import SCORES_BY_WNID, check_distinct, is_header, is_image_name, is_known_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from wds_real.scoring.reading.spellings import Columns

__all__ = ["MAX_CELLS", "MAX_ROWS", "MAX_ROW_CHARACTERS", "MAX_SCORES", "read_table"]

MAX_ROWS = 1_000_000  # 20 times the validation images
MAX_CELLS = 20_000_000  # kept as text: 400 for each image; scores are kept as numbers
MAX_SCORES = 100_000_000  # twice 50,000 x 1,000
MAX_ROW_CHARACTERS = 4 << 20  # 1,000 scores of 25 characters take 25,000
_BLANKS = " "  # as a delimiter: any number of blanks


def read_table(file: TextIO, delimiter: str) -> Columns:
    """Read a table with or without a header. Blank lines, lines that start with ``#`` and empty columns are left out.

    Rows of 1,000 numbers and more are scores: they become one column, float64 (N, outputs); if the header names the
    1,000 wnids, it is `SCORES_BY_WNID`, in the order of the classes.

    Args:
        file: Opened with ``newline=""``.
        delimiter: Tried first; then commas, semicolons, tabs and blanks are.

    Raises:
        PredictionsError: rows have different numbers of cells, or there are more than the limits above.
    """
    lines = _Lines(file)
    first_lines = lines.peek(2)
    if not first_lines:
        return {}
    delimiter = _delimiter(first_lines, delimiter)
    rows = _rows(lines, delimiter)
    first = next(rows)
    header = next(_split([lines.comment], delimiter), []) if lines.comment else []
    if len(header) != len(first) or not any(map(is_known_word, header)):
        header = []  # an ordinary comment
    if len(first) >= NUM_CLASSES:
        return _score_table(first, rows, header)
    table = [first, *_checked(rows, first, MAX_CELLS)]
    if is_header(first, len(table)):
        header = table.pop(0)
    cells = zip(*table, strict=True) if table else ((),) * len(first)
    columns = dict(zip(_names(header, len(first)), map(list, cells), strict=True))
    return {name: column for name, column in columns.items() if not _is_empty(name, column)}


class _Lines:
    """The lines of a file without blank lines and comments; a row may have line breaks in quotes.

    Attributes:
        comment: The comment right before the first row, without its ``#``; "" if there is none.
        in_row: Characters given since the last row was complete; whoever reads the rows sets it to 0.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._peeked = deque[str]()
        self._has_begun = False
        self.comment = ""
        self.in_row = 0

    def peek(self, count: int) -> list[str]:
        """Return the next lines, at most `count`, and give them again later."""
        while len(self._peeked) < count and (line := self._next()):
            self._peeked.append(line)
        return list(self._peeked)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._peeked.popleft() if self._peeked else self._next()
        if not line:
            raise StopIteration
        self.in_row += len(line)
        if self.in_row > MAX_ROW_CHARACTERS:
            raise PredictionsError(f"a row has more than {MAX_ROW_CHARACTERS:,} characters. Is a quote not closed?")
        return line

    def _next(self) -> str:
        while line := self._file.readline(MAX_ROW_CHARACTERS + 1):
            stripped = line.strip()
            if self.in_row or (stripped and not stripped.startswith("#")):
                self._has_begun = True
                return line
            if not self._has_begun and stripped:
                self.comment = stripped.lstrip("# ")
        return ""


def _delimiter(lines: Sequence[str], preferred: str) -> str:
    first = lines[0]
    found = next((mark for mark in (preferred, ",", ";", "\t") if mark in first), None)
    if found is not None:
        return found
    words = [line.split() for line in lines]
    is_list = any(mark in first for mark in "[](){}\"'") or (words[0][0] in index_of_wnid() and len(words[0]) > 1)
    return preferred if len(words[0]) < 2 or is_list or len({*map(len, words)}) > 1 else _BLANKS


def _split(lines: Iterator[str] | Sequence[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter == _BLANKS:
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _rows(lines: _Lines, delimiter: str) -> Iterator[list[str]]:
    for number, row in enumerate(_split(lines, delimiter)):
        if number > MAX_ROWS:
            raise PredictionsError(f"more than {MAX_ROWS:,} rows. Expected one for each image.")
        lines.in_row = 0
        yield row


def _checked(rows: Iterator[list[str]], first: list[str], max_cells: int) -> Iterator[list[str]]:
    width, most = len(first), max_cells // max(1, len(first))
    for number, row in enumerate(rows, start=2):
        if len(row) != width:
            raise PredictionsError(f"row {number} ({row[0][:80]}) has {len(row)} cells, the first row has {width}.")
        if number > most:
            raise PredictionsError(
                f"more than {max_cells:,} cells. Expected up to five classes, or 1,000 scores, for each image."
            )
        yield row


def _names(header: list[str], width: int) -> list[str]:
    """Return the names of columns: their places without a header, and "" for the row labels of pandas."""
    if not header:
        return [str(place) for place in range(width)]
    names = [cell.strip().lower() for cell in header]
    names = [name or (f"column {place + 1}" if place else "") for place, name in enumerate(names)]
    check_distinct(names)
    return names


def _is_empty(name: str, column: Sequence[str]) -> bool:
    """Return whether a column is only there because its rows end with a delimiter."""
    return (not name or name.startswith("column ")) and bool(column) and not any(cell.strip() for cell in column)


def _score_table(first: list[str], rows: Iterator[list[str]], header: list[str]) -> Columns:
    """Return the columns of a table whose rows hold scores; numbers are kept as numbers, not as text."""
    second = next(rows, None)
    reference, titles = second or first, header or first
    is_score = [_is_number(cell) and not is_known_word(title) for cell, title in zip(reference, titles, strict=False)]
    if len(reference) != len(first) or sum(is_score) < NUM_CLASSES:
        raise PredictionsError(
            f"rows of {len(first):,} cells, {sum(is_score):,} of them numbers. Expected a name and up to five classes, "
            f"or a name and {NUM_CLASSES:,} scores."
        )
    table = _ScoreRows(is_score)
    try:
        table.add(first, 1)
    except PredictionsError:
        if any(map(is_image_name, first)) or header:
            raise
        header = first
    for number, row in enumerate(
        itertools.chain([] if second is None else [second], _checked(rows, first, MAX_SCORES)), start=2
    ):
        table.add(row, number)
    drop = 0
    if not header and is_header(first, len(table.scores) // sum(is_score)):
        header, drop = first, 1
    names = _names(header, len(first))
    columns: Columns = {name: texts[drop:] for name, texts in zip(_others(names, is_score), table.texts, strict=True)}
    titles = list(itertools.compress(names, is_score))
    scores = np.frombuffer(table.scores, dtype=np.float64).reshape(-1, len(titles))[drop:]
    wnids = index_of_wnid()
    if header and set(titles) == wnids.keys():
        return {**columns, SCORES_BY_WNID: scores[:, np.argsort([wnids[title] for title in titles])]}
    return {**columns, "scores" if header else titles[0]: scores}


class _ScoreRows:
    """Rows taken apart: the scores of each, and the other cells by column."""

    def __init__(self, is_score: list[bool]) -> None:
        self.is_score = is_score
        self.scores = array.array("d")
        self.texts: list[list[str]] = [[] for is_number in is_score if not is_number]

    def add(self, row: list[str], number: int) -> None:
        cells = list(itertools.compress(row, self.is_score))
        try:
            self.scores.frombytes(np.array(cells, dtype=np.float64).tobytes())
        except ValueError as error:
            raise PredictionsError(f"row {number} ({row[0][:80]}): a score is not a number.") from error
        for texts, cell in zip(self.texts, _others(row, self.is_score), strict=True):
            texts.append(cell)


def _others(row: list[str], is_score: list[bool]) -> list[str]:
    return [cell for cell, is_number in zip(row, is_score, strict=True) if not is_number]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
