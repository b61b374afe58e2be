"""Griffe extension: doctests in docstrings become code blocks on the pages, instead of Markdown quotes."""

from __future__ import annotations

import re

import griffe

# A prompt and all lines up to the next empty one, not in a code block already.
DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put fences around the doctests of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **arguments: object) -> None:
        """Rewrite the docstring of an object that was loaded."""
        del arguments
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
