"""``python -m wds_real`` and ``wds-real``: both take care of streams and signals before anything else is imported."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def test_both_ways_to_start_are_one() -> None:
    """The installed command calls the function that ``python -m`` runs."""
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"wds-real": "wds_real.__main__:main"}


def test_nothing_is_imported_before_signals_are_handled() -> None:
    """The module that is started imports no other module of the package, nor a library, when it is imported."""
    code = "import sys, wds_real.__main__ as m; print(*sorted(n for n in sys.modules if n.startswith(('wds', 'cl'))))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["wds_real", "wds_real.__main__"]
