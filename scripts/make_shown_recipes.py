"""Write the recipes of scripts/launch into docs/clusters.md, each below the comment that names its file."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "clusters.md"
_SHOWN = re.compile(r"(<!-- (scripts/launch/[\w.-]+), as it is -->\n```\w+\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)


def with_recipes(page: str) -> str:
    """Return the text of a page with the content of each file below its comment."""
    return _SHOWN.sub(lambda found: found[1] + (REPOSITORY / found[2]).read_text("utf-8"), page)


if __name__ == "__main__":
    PAGE.write_text(with_recipes(PAGE.read_text("utf-8")), "utf-8")
