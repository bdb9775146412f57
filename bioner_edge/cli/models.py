"""`bioner-edge models`: list models, show one, check their files, fetch base models from the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bioner_edge.cli.options import complain, print_table, write
from bioner_edge.errors import printable

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def models(context: typer.Context) -> None:
    """List models, show one, check their files, fetch base models.

    Models are those that ship with bioner-edge and those in the folder $BIONER_MODELS, as `bioner-edge convert` writes
    it. Without a command: the list.
    """
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object per model, one per line.")] = False,
) -> None:
    """List the models that can be used by name, and the base models that can be fetched."""
    from bioner_edge.cli import model_tables

    rows = model_tables.rows()
    if json_:
        write("".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows))
        return
    for table in model_tables.overview(rows):
        print_table(table)


@app.command()
def show(
    model: Annotated[
        str, typer.Argument(help="Name of a listed model, a GGUF file or an ONNX folder.", metavar="MODEL")
    ],
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show everything known about a model: manifest, verification figures, tensor types, sources."""
    from bioner_edge.cli import model_tables

    found = model_tables.describe(model)
    if json_:
        write(json.dumps(found, ensure_ascii=False) + "\n")
        return
    for table in model_tables.draw(found):
        print_table(table)


@app.command()
def verify(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, GGUF files, ONNX folders, or folders of models. [default: every model on this machine]",
            metavar="MODEL",
        ),
    ] = None,
) -> None:
    """Check the hashes of model files against models.toml, their manifests and what the hub stated.

    Exit code: 0 all match; 1 one does not; 2 nothing was checked.
    """
    from bioner_edge.models.verify import verify_files

    failed = False
    for check in verify_files(targets or []):
        if check.holds:
            write(f"ok  {printable(check.message)}\n")
        else:
            failed = True
            complain(check.message)
    raise typer.Exit(int(failed))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Base model; `bioner-edge models list` names them.", metavar="NAME")],
    to: Annotated[
        Path | None,
        typer.Option(help="Folder in which the folder of the model is made. [default: models]", metavar="FOLDER"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or tag. [default: the commit pinned in models.toml]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")] = False,
) -> None:
    """Fetch a base model from the Hugging Face hub into FOLDER/NAME, and print that folder.

    An interrupted download is resumed. Each file is checked against the hash that the hub states and the one in
    models.toml. A gated model needs a token in $HF_TOKEN; $HF_ENDPOINT names a mirror.
    """
    from bioner_edge.models import hub
    from bioner_edge.models.hub_lock import FOLDER
    from bioner_edge.terminal import Terminal

    report = Terminal(quiet=quiet, prefix="bioner-edge: ")
    write(f"{hub.pull(name, to or FOLDER, revision, report=report)}\n")
