"""Write the tables of commands and options in docs/*.md from the command line, the single source of their text.

Options stand between `<!-- options: bench run -->` and `<!-- end -->`, the list of commands between `<!-- commands -->`
and `<!-- end -->`. `make docs` runs this file; tests/test_docs.py checks that the tables are what it would write now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main

from bioner_edge.cli import app
from bioner_edge.cli.file_format_help import FileFormatCommand

__all__ = ["commands", "pages", "refreshed"]

DOCS = Path(__file__).parent
BLOCK = re.compile(r"<!-- (?:options: (?P<command>[^>]+)|commands) -->\n.*?<!-- end -->", re.DOTALL)
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")
_CODE = re.compile(r"(?<![`\w])(--[a-z-]+|\$[A-Z_]+)(?![`\w])")


def commands(command: Any = None, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name, in the order of `--help`."""
    command = command or typer.main.get_command(app)
    if subcommands := getattr(command, "commands", None):
        for name, subcommand in subcommands.items():
            yield from commands(subcommand, *names, name)
    else:
        if isinstance(command, FileFormatCommand):
            command.name_file_formats()
        yield " ".join(names), command


def pages() -> dict[str, Path]:
    """The page that holds the options of each command."""
    found: dict[str, Path] = {}
    for page in sorted(DOCS.rglob("*.md")):
        for block in BLOCK.finditer(page.read_text("utf-8")):
            if name := block["command"]:
                if name in found:
                    raise ValueError(f"{page}: the options of {name!r} stand in {found[name]} too")
                found[name] = page
    return found


def refreshed(page: Path) -> str:
    """The text of a page with its tables as the command line is now. Raises KeyError for an unknown command."""
    known = dict(commands())

    def block(found: re.Match[str]) -> str:
        start = found[0].splitlines()[0]
        lines = _options(known[found["command"]]) if found["command"] else _overview(known)
        return "\n".join([start, "", *lines, "", "<!-- end -->"])

    return BLOCK.sub(block, page.read_text("utf-8"))


def _overview(known: Mapping[str, Any]) -> list[str]:
    where = pages()
    lines = ["| command | what it does |", "|---|---|"]
    for name, command in known.items():
        link = f"[`{name}`]({where[name].relative_to(DOCS)})" if name in where else f"`{name}`"
        summary = " ".join(command.help.split("\n\n")[0].split())
        lines.append(f"| {link} | {_cell(summary)} |")
    return lines


def _options(command: Any) -> list[str]:
    lines = ["| option | what it does | default |", "|---|---|---|"]
    for parameter in command.params:
        if "--help" not in parameter.opts:
            told, default = _told(parameter)
            lines.append(f"| {_name(parameter)} | {_cell(told)} | {default} |")
    return lines


def _name(parameter: Any) -> str:
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        more = "..." if parameter.nargs == -1 and "..." not in metavar else ""
        return f"`{metavar}{more}`"
    names = [*(name for name in parameter.opts if name.startswith("--")), *parameter.secondary_opts]
    return ", ".join(f"`{name}` {metavar}".rstrip() for name in names)


def _told(parameter: Any) -> tuple[str, str]:
    """(help text, default) of a parameter. Help texts name defaults that are not plain values: "… [default: all]"."""
    text, value = parameter.help or "", parameter.default
    if found := _DEFAULT.search(text):
        return text[: found.start()], _cell(found[1])
    if parameter.required:
        return text, "required"
    if parameter.secondary_opts:  # one name for yes, one for no
        return text, f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
    if isinstance(value, bool) or getattr(parameter, "is_flag", False):
        return text, "on" if value else "off"
    if value in (None, (), []):
        return text, "–"
    return text, f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    """Text of a table's cell: options and variables as code, no bar that would end the cell."""
    return _CODE.sub(r"`\1`", text).replace("|", "\\|")


def main() -> None:
    missing = [name for name, _ in commands() if name not in pages()]
    if missing:
        raise SystemExit(f"docs: no page has the options of: {', '.join(missing)}")
    for page in sorted(DOCS.rglob("*.md")):
        text = refreshed(page)
        if text != page.read_text("utf-8"):
            page.write_text(text, "utf-8")
            print(f"{page.relative_to(DOCS.parent)}: tables refreshed")


if __name__ == "__main__":
    main()
