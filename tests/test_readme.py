"""The Python in README.md and in docs/ runs as it stands."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[int, str]]:
    """(its line, a block of Python), in order."""
    text = page.read_text("utf-8")
    return [(text.count("\n", 0, found.start(2)), found[2]) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, in a folder that holds the example texts; nothing that they read is lost."""
    for example in (ROOT / "bioner_edge" / "examples").iterdir():
        shutil.copy(example, tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for line, code in blocks(page):
            # Line breaks before it, so that a traceback tells the line of the page.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_the_readme_shows_python() -> None:
    code = "\n".join(code for _, code in blocks(ROOT / "README.md"))
    assert "bioner_edge.load()" in code and "read_file(" in code
