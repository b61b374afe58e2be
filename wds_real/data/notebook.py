"""Small HTML tables for ``_repr_html_``, which notebooks show; all text is escaped."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["facts_table", "image_tag", "rows_table"]


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """Return a table of two columns, names and values; a value that is HTML already comes from `image_tag`.

    >>> facts_table("<b>", {"a": 1})
    '<table><caption>&lt;b&gt;</caption><tr><th>a</th><td>1</td></tr></table>'
    """
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in facts.items())
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def rows_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table with a header.

    >>> rows_table("t", ["x"], [[1], ["<"]])
    '<table><caption>t</caption><tr><th>x</th></tr><tr><td>1</td></tr><tr><td>&lt;</td></tr></table>'
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr>{body}</table>"


class _Tag(str):
    """HTML that is inserted as it is."""

    __slots__ = ()


def image_tag(jpeg: bytes, description: str) -> str:
    r"""Return an HTML image that holds its bytes, and its alternative text.

    >>> image_tag(b"\xff\xd8", 'a "b"')
    '<img src="data:image/jpeg;base64,/9g=" alt="a &quot;b&quot;">'
    """
    return _Tag(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode("ascii")}" alt="{html.escape(description)}">'
    )


def _cell(value: object) -> str:
    return value if isinstance(value, _Tag) else html.escape(str(value))
