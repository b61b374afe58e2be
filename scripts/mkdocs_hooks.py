"""MkDocs hooks: files outside docs/ become part of the site, and links to them work there as in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parent.parent
# Files of the repository that pages link to, by their names in the site: pages, and files that are served as they are.
SITE_NAMES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "shards/README.md": "shards.md",
    "README.md": "readme.md",
    "wds_real/labels/data/README.md": "label-data.md",
    "CITATION.cff": "CITATION.cff.txt",
    "LICENSE": "LICENSE.txt",
    "third_party/libjpeg-turbo/LICENSE.md": "libjpeg-turbo.txt",
    "scripts/evaluate.py": "scripts/evaluate.py.txt",
    "scripts/write_shards.py": "scripts/write_shards.py.txt",
}
LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ to the site."""
    for path, name in SITE_NAMES.items():
        files.append(File.generated(config, name, abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page from places in the repository to places in the site."""
    del config, files
    source = next((path for path, name in SITE_NAMES.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")
    folder = (REPOSITORY / source).parent

    def rewrite(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(REPOSITORY):
            return match[0]
        path = target.relative_to(REPOSITORY).as_posix()
        return SITE_NAMES.get(path, path.removeprefix("docs/"))

    return LINK.sub(rewrite, markdown)
