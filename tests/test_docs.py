"""The documentation says what the command line says, and its links lead somewhere."""

from __future__ import annotations

import re
import runpy
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bioner_edge" / "data" / "MODEL_CARD.md", *DOCS]
OPTIONS: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "options.py"))

MOST_LINES = 110
"""Of the README, which is an overview; what does not fit belongs in docs/."""

FENCED = re.compile(r"^( *)```.*?^\1```$|^ {4}[^\n]*", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)
PATH = re.compile(r"(?:bioner_edge|convert|benchmarks|docs|tests)/[\w./-]*|[\w-]+\.toml")

relative = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(FENCED, "", page.read_text("utf-8"))


def github(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def site(heading: str) -> str:
    """The anchor that the site gives a heading: that of Python-Markdown."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def faults(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere, on GitHub or on the site."""
    for target in LINK.findall(CODE.sub("code", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists():
            yield f"{target}: no such file"
        elif anchor:
            headings = HEADING.findall(prose(file))
            for where, slug in (("GitHub", github), ("the site", site)):
                if [slug(heading) for heading in headings].count(anchor) != 1:
                    yield f"{target}: on {where} not exactly one heading has this anchor"


@relative
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert list(faults(page)) == []


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "a.md"
    text = "# A b\n\n[1](a.md) [2](#a-b) [3](https://x.org/#y)\n\n[4](b.md) [5](#c) [6](../a)\n\n    [7](in-code.md)\n"
    page.write_text(text, "utf-8")
    assert [fault.split(":")[0] for fault in faults(page)] == ["b.md", "#c", "#c", "../a"]


@relative
def test_paths_of_the_repository_exist(page: Path) -> None:
    named = {code for code in CODE.findall(prose(page)) if PATH.fullmatch(code)}
    written = {"models.toml", "recipe.toml"}  # also what a command writes, or in the folder of the sentence
    assert [path for path in sorted(named - written) if not (ROOT / path).exists()] == []


def test_every_command_has_its_options_on_a_page() -> None:
    assert OPTIONS["pages"]().keys() == {name for name, _ in OPTIONS["commands"]()}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_of_options_are_those_of_the_command_line(page: Path) -> None:
    assert page.read_text("utf-8") == OPTIONS["refreshed"](page), "run `make docs`"


def test_every_option_is_explained() -> None:
    """The help text is what the documentation says of an option, and all that it says."""
    parameters = [(name, p) for name, command in OPTIONS["commands"]() for p in command.params]
    assert [(name, p.name) for name, p in parameters if not (p.help or "").strip()] == []


def test_the_readme_is_an_overview() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_LINES
