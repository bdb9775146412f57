"""Help texts that list file formats, filled in when a command's help is requested."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["FileFormatCommand"]


class FileFormatCommand(TyperCommand):
    """A command whose help texts have placeholders such as `{read}` for names of file formats, see `_lists`.

    The file formats are loaded only for help.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.name_file_formats()
        super().format_options(ctx, formatter)

    def name_file_formats(self) -> None:
        """Fill the names into the help texts."""
        lists = _lists()
        for parameter in self.params:
            if text := getattr(parameter, "help", None):
                for name, listed in lists.items():
                    text = text.replace(f"{{{name}}}", listed)
                parameter.help = text  # type: ignore[attr-defined]


def _lists() -> dict[str, str]:
    from bioner_edge.errors import alternatives
    from bioner_edge.io.registry import STANDARD, readable, scorable, writable

    return {
        "read": alternatives(known.name for known in readable()),
        "written": alternatives(known.name for known in writable()),
        "folders": alternatives(known.name for known in writable() if known.folder_writer),
        "gold_titles": alternatives(known.title for known in writable() if known.holds_gold),
        "scored_titles": ", ".join(known.title for known in scorable()),
        "standard": STANDARD.name,
        "standard_title": STANDARD.title,
    }
