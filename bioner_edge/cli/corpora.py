"""`bioner-edge corpora`: list the named corpora, check their files, show one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioner_edge.cli.options import complain, print_table, write
from bioner_edge.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bioner_edge.corpora.named import Entry, Split

__all__ = ["app"]

_MOST_TYPES = 2  # spelled out in a row of the list

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def corpora(context: typer.Context) -> None:
    """List the corpora that can be used by name, check their files, show one.

    Their texts are not part of bioner-edge: they are looked for in $BIONER_CORPORA, else in ../shared/corpora.
    Without a command: the list.
    """
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per corpus, one per line.")] = False,
) -> None:
    """List the corpora with their splits and counts, without reading a file."""
    from bioner_edge.corpora.named import entries

    folder = _folder()
    if json_:
        lines = (json.dumps(entry.to_json(folder), ensure_ascii=False) + "\n" for entry in entries().values())
        write("".join(lines))
        return
    for table in _overview(list(entries().values()), folder):
        print_table(table)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Corpora, or splits of them. [default: all on this machine]", metavar="NAME[:SPLIT]"),
    ] = None,
) -> None:
    """Read corpora and compare their counts with the published ones.

    Exit code: 0 all match; 1 one does not, or a row that should be usable is not; 2 nothing was checked.
    """
    from bioner_edge.corpora.named import corpora_dir, entries, open_corpus, select

    folder, failed = corpora_dir(), False
    requested = [(entry, split) for name in names or entries() for entry, splits in [select(name)] for split in splits]
    found = {f"{entry.name}:{split.name}": split for entry, split in requested if split.found(folder)}
    if not found:
        raise InputError(
            f"{folder}: none of these corpora was found; `bioner-edge corpora list` says where to get them"
        )
    for name, split in found.items():
        try:
            corpus = open_corpus(name)
        except InputError as error:
            complain(str(error))
            failed = True
            continue
        counts = f"{len(corpus.documents):,} documents, {corpus.counts.annotations:,} annotations"
        if not corpus.unexpected:
            write(f"ok  {name}: {counts}, {_source(split)}\n")
        failed = failed or bool(corpus.unexpected)
        for notice in corpus.notices if corpus.unexpected else corpus.notices[corpus.unusable :]:
            complain(f"warning: {notice}")
    for entry, split in requested if names else []:
        if (name := f"{entry.name}:{split.name}") not in found:
            complain(f"{name}: {folder / split.path} is missing; it is available at {entry.url}")
    raise typer.Exit(int(failed))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Corpus; `bioner-edge corpora list` names them.", metavar="NAME")],
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show everything known about a corpus: labels and their meaning, splits, counts, license, citation."""
    from bioner_edge.corpora.named import select

    entry, _ = select(name)
    folder = _folder()
    if json_:
        write(json.dumps(entry.to_json(folder), ensure_ascii=False) + "\n")
        return
    for table in (_facts(entry), _labels(entry), *_overview([entry], folder)):
        print_table(table)


def _folder() -> Path | None:
    """The folder of the corpora, or None with a warning: the list needs none."""
    from bioner_edge.corpora.named import corpora_dir

    try:
        return corpora_dir()
    except InputError as error:
        complain(f"warning: {error}")
        return None


def _source(split: Split) -> str:
    if split.counted is None:
        return "as published"
    return "as expected" if split.published else "as when it was listed; no counts are published"


# --- Tables


def _overview(listed: list[Entry], folder: Path | None) -> list[Table]:
    """The corpora with a line for each split, then where to get those of which no split is on this machine."""
    table = _table("corpus", "split", "documents", "entities", "types", "license")
    table.columns[2].justify = table.columns[3].justify = "right"
    table.columns[1].no_wrap = table.columns[2].no_wrap = table.columns[3].no_wrap = True
    table.caption, table.caption_justify = "✓ here   * counted by us, not published", "left"
    absent: dict[str, list[str]] = {}
    for entry in listed:
        splits = list(entry.splits.values())
        here = [split.found(folder) for split in splits]
        cells = zip(*(_cells(split, found) for split, found in zip(splits, here, strict=True)), strict=True)
        types = ", ".join(entry.labels) if len(entry.labels) <= _MOST_TYPES else f"{len(entry.labels)} types"
        table.add_row(entry.name, *(_stack(column, here) for column in cells), types, entry.license)
        if not any(here):
            absent.setdefault(entry.url, []).append(entry.name)
    return [table, _sources(absent)] if absent else [table]


def _sources(names: Mapping[str, list[str]]) -> Table:
    table = _table("missing", "available at")
    for url, corpora in names.items():
        table.add_row("\n".join(corpora), url)
    return table


def _cells(split: Split, found: bool) -> tuple[str, str, str]:
    """The cells of a split; published counts where there are any."""
    documents, annotations = (_count(split, what) for what in ("documents", "annotations"))
    return f"{'✓' if found else ' '} {split.name}", documents, annotations


def _count(split: Split, what: str) -> str:
    if split.published and (count := getattr(split.published, what)) is not None:
        return f"{count:,} "
    return f"{getattr(split.counted, what):,}*" if split.counted else "? "


def _stack(column: tuple[str, ...], here: list[bool]) -> Text:
    """A cell with a line for each split, dim where its file is missing."""
    from rich.text import Text

    lines = [Text(cell, "" if found else "dim") for cell, found in zip(column, here, strict=True)]
    return Text("\n").join(lines)


def _facts(entry: Entry) -> Table:
    table = _plain()
    for fact in ("title", "language", "license", "citation", "doi", "url"):
        table.add_row(fact, getattr(entry, fact))
    table.add_row("counts", f"published: {entry.counts}" if entry.counts else "none are published")
    for split in entry.splits.values():
        if split.because:
            table.add_row(f"{split.name} here", split.because)
    return table


def _labels(entry: Entry) -> Table:
    table = _table("label", "elsewhere", "what it means")
    for label, meaning in entry.labels.items():
        merged = [own for own, into in entry.merge.items() if into == label]
        made = f" Merged from {', '.join(merged)}." if merged else ""
        table.add_row(label, entry.general.get(label, "–"), meaning + made)
    return table


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number == 0, overflow="fold")
    return table


def _plain() -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table
