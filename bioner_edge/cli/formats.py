"""`bioner-edge formats`: list the output formats, show one, measure what they can express of a corpus."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bioner_edge.cli.file_format_help import FileFormatCommand
from bioner_edge.cli.options import complain, guidelines, names, print_table, write
from bioner_edge.errors import UsageError, printable

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def formats(context: typer.Context) -> None:
    """List the output formats, show one, or measure what they can express of a corpus.

    Without a command: a table of all formats, with the answer of each to an example and what it cannot express.
    """
    if context.invoked_subcommand is None:
        from bioner_edge.format_tables import overview

        print_table(overview())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Output format; `bioner-edge formats` lists them.", metavar="NAME")],
    labels: Annotated[str, typer.Option(help="Entity types to ask for, comma-separated.")] = "Chemical,Disease",
    guidelines_: Annotated[
        Path | None,
        typer.Option(
            "--guidelines",
            help='TOML file that explains the types, a line each: label = "what it means".',
            metavar="FILE",
        ),
    ] = None,
    gbnf: Annotated[
        bool, typer.Option("--gbnf", help="Print only the GBNF grammar of its answers, for any llama.cpp program.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option(help="Print only the prompt for this text, as the model gets it.", metavar="TEXT")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose chat template and tokenizer are used: a name, a GGUF file or an ONNX folder. "
            "[default: the bundled model]"
        ),
    ] = None,
) -> None:
    """Show a format, its grammar or a prompt.

    Without --gbnf or --prompt: the question about an example and its answer.
    """
    from bioner_edge import format_tables

    asked = names("--labels", labels) or []
    notes = guidelines(guidelines_) or {}
    if gbnf and prompt is not None:
        raise UsageError("--gbnf and --prompt each print one thing alone; give one of them")
    if unused := [label for label in notes if label not in asked]:
        complain(f"warning: the guideline for {unused[0]!r} is not used: it is none of the labels {', '.join(asked)}")
    if gbnf:
        grammars = format_tables.grammars(name, asked)
        _write_parts(grammars, "# {}\n")
        if len(grammars) > 1:
            message = f"{len(grammars)} grammars, one per answer; llama.cpp takes one: select it with --labels"
            complain(f"warning: {message}")
    elif prompt is not None:
        written = format_tables.render_prompts(
            name, asked, notes, prompt, model, lambda note: complain(f"warning: {note}")
        )
        _write_parts(written, "=== {}\n")
    else:
        write(format_tables.details(name, asked, notes, model) + "\n")


@app.command(cls=FileFormatCommand)
def check(
    corpus: Annotated[
        list[str], typer.Argument(help="Annotated files, folders or globs; `-` reads standard input.", metavar="CORPUS")
    ],
    formats: Annotated[
        str | None, typer.Option(help="Output formats to check, comma-separated. [default: all]")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="File format of the input: {read}. [default: by the suffix, else by the content]",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Entity types to check, comma-separated. [default: those of the corpus]")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per format, one per line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no warnings.")] = False,
) -> None:
    """Measure what formats can express of a corpus.

    The gold annotations of each document are rendered as an answer and parsed back: the F1 of that is the format's
    ceiling.

    Exit code: 0 all done; 1 a format is defective, or text of the corpus could not be read; 2 nothing was done.
    """
    from bioner_edge.benchmarks.scoring import ceiling
    from bioner_edge.io.inputs import Inputs
    from bioner_edge.terminal import Terminal

    inputs = Inputs(corpus, lambda notice: complain(str(notice)), from_, annotated=True)
    checked = ceiling.check(
        inputs,
        names("--formats", formats),
        names("--labels", labels),
        complain=complain,
        report=Terminal(quiet=quiet, prefix="bioner-edge: "),
    )
    if json_:
        write("".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in checked.rows))
    else:
        print_table(ceiling.table(checked.rows, checked.labels))
    if checked.notices and not quiet:
        complain(
            f"{checked.notices} notices about the corpus, {checked.lost} of them of text that is not in the figures"
        )
    raise typer.Exit(checked.exit_code)


def _write_parts(parts: list[tuple[list[str], str]], heading: str) -> None:
    """Write a single text as it is; of several, each with its labels above it and a line break after it."""
    if len(parts) == 1:
        write(parts[0][1] + ("\n" if sys.stdout.isatty() else ""))
        return
    for asked, text in parts:
        title = printable(", ".join(asked))
        write(heading.format(title) + text + "\n")
