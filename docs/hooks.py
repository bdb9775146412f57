"""The pages of the site that are files elsewhere in the repository, for people who read them there; see mkdocs.yml.

Links in all pages are those of the repository, so that they work there too. Here they are made those of the site; what
then leads nowhere fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bioner_edge/data/MODEL_CARD.md": "model-card.md",
}
"""Path in the repository -> page of the site."""

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    for path, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    at = page.file.src_uri
    path = {there: here for here, there in ELSEWHERE.items()}.get(at, f"docs/{at}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[2]))
        there = ELSEWHERE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if there is None:  # reported by mkdocs
            return link[0]
        return link[1] + posixpath.relpath(there, posixpath.dirname(at) or ".") + link[3]

    return _LINK.sub(moved, markdown)
