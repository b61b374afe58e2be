"""Make the shown result again: run `wds-real demo`, write the image, and update the block in README.md.

python scripts/make_shown_result.py
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
IMAGE = REPOSITORY / "docs" / "images" / "result.svg"
MODEL = "wds_real.synthetic:known_answer_model"
BLOCK = re.compile(
    r"(?<=<!-- result of wds-real demo: begin \(scripts/make_shown_result.py writes this\) -->\n```\n).*?"
    r"(?=```\n<!-- result of wds-real demo: end -->)",
    re.DOTALL,
)
COLUMNS = 108


def main() -> None:
    """Run the demo, and write what it prints where it is shown."""
    command = [sys.executable, "-m", "wds_real", "demo"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 -- our own command
    result = result_of(done.stdout)
    README.write_text(BLOCK.sub(lambda _: result, README.read_text("utf-8")), "utf-8")
    IMAGE.parent.mkdir(exist_ok=True)
    IMAGE.write_text(as_svg(result), "utf-8")
    print(f"{README}\n{IMAGE}: {IMAGE.stat().st_size:,} bytes")


def result_of(output: str) -> str:
    """Return the lines of the demo's output that are the result, from its title to the digest of the data set."""
    lines = output.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{MODEL} on "))
    last = next(number for number, line in enumerate(lines) if line.startswith(" data set ") and number > first)
    return "".join(lines[first : last + 1])


def as_svg(result: str) -> str:
    """Return an image of a terminal that shows the result; it needs no font or other file from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("$ wds-real demo", style="bold"))
    for line in result.splitlines():
        text = Text(line)
        text.highlight_regex(r"^ ReaL top-1 .*", "bold green")
        text.highlight_regex(r"^ coverage: .*", "cyan")
        console.print(text)
    svg = console.export_svg(title="wds-real demo", theme=DIMMED_MONOKAI, unique_id="result")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # the fonts that rich adds are on a web server
    return svg.replace("Fira Code,", "Fira Code, ui-monospace, Menlo, Consolas,")


if __name__ == "__main__":
    main()
