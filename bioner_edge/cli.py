"""The command line: each verb calls one function. Heavy imports wait until a verb runs, so that --help is quick."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from . import __version__
from .cli_bench import app as bench
from .cli_bench import compare
from .cli_convert import convert, verify
from .cli_corpora import app as corpora
from .cli_doctor import doctor
from .cli_formats import app as formats
from .cli_models import app as models
from .cli_options import complain, names
from .cli_options import guidelines as read_guidelines
from .errors import BionerError

if TYPE_CHECKING:
    from .extract import Extraction

__all__ = ["app", "main"]

app = typer.Typer(
    name="bioner-edge",
    help="Biomedical named entities from text, offline, with small language models.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")
app.add_typer(formats, name="formats")
app.add_typer(models, name="models")
app.add_typer(corpora, name="corpora")
app.command()(compare)
app.command()(convert)
app.command()(verify)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        print(f"bioner-edge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def extract(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs; '-' or nothing is standard input.", metavar="INPUT"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A listed model's name, a GGUF file or an ONNX folder. [default: the bundled model]"),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="A LoRA adapter in GGUF, added to the model while it runs.", metavar="FILE")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Output format of the model. [default: the manifest's]")] = None,
    labels: Annotated[str | None, typer.Option(help="Entity types, comma-separated. [default: the manifest's]")] = None,
    guidelines: Annotated[Path | None, typer.Option(help='TOML file: label = "what it means".', metavar="FILE")] = None,
    constraint: Annotated[
        str,
        typer.Option(help="What the model may write: free, gbnf, grounded or llama-gbnf (llama.cpp's own)."),
    ] = "grounded",
    min_score: Annotated[float, typer.Option(help="Leave out entities below this score.", min=0.0, max=1.0)] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Output file. [default: standard output]", metavar="FILE")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Output: jsonl, pubtator, or brat, for which --out is a folder. "
            "[default: by the suffix of --out; without one jsonl]"
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Input file format: text, jsonl, pubtator, brat or bc2gm. [default: by the suffix, else the content]",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads. [default: the cores of this process]", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Decoding is greedy: every seed gives the same entities.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output file.")] = False,
    keep_annotations: Annotated[
        bool, typer.Option("--keep-annotations", help="Copy the input's own annotations to the output, as 'gold'.")
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print coloured text and tables instead of JSON Lines; give --out for a file too."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Load a model that seems larger than the memory that is free.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no warnings.")] = False,
) -> None:
    """Find entities, with exact offsets, and write a JSON line for each document.

    Exit code: 0 all done; 1 something failed, was named on standard error, and the rest is written; 2 nothing was done.
    """
    from .extract import load
    from .inputs import Inputs
    from .run import Output, run

    output = Output.named(out, to, overwrite=overwrite, with_gold=keep_annotations, shown=show)
    sources = Inputs(inputs or ["-"], lambda notice: complain(str(notice)), from_, annotated=keep_annotations)
    output.refuse_among(sources)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)  # what `load` warns of; a library's own stay as they are
        extractor = load(
            model,
            adapter=adapter,
            format=format,
            labels=names("--labels", labels),
            constraint=constraint,
            guidelines=read_guidelines(guidelines),
            min_score=min_score,
            threads=threads,
            force=force,
        )
    for warning in warned if not quiet else []:
        complain(f"warning: {warning.message}")
    with extractor:
        try:
            outcome = run(
                extractor,
                sources,
                output,
                complain=complain,
                quiet=quiet,
                shown=_shower(extractor.labels) if show else None,
            )
        except BrokenPipeError:  # `| head` has seen enough
            raise typer.Exit(0) from None
    if outcome.problems and not quiet:
        complain(f'{outcome.problems} problems in the answers of the model; JSON Lines name them under "problems"')
    raise typer.Exit(outcome.exit_code)


def _shower(labels: list[str]) -> Callable[[Extraction], None]:
    from rich.console import Console

    from .show import show

    console = Console(highlight=False)
    return lambda extraction: show(extraction, labels, console)


def main() -> NoReturn:
    """The entry point: a user's mistake is one line and exit code 2."""
    try:
        code = app(prog_name="bioner-edge", standalone_mode=False)
    except BionerError as error:
        _fail(str(error))
    except typer.Abort:
        raise SystemExit(130) from None
    except ModuleNotFoundError as error:  # installed without its dependencies, as where nothing can be compiled
        if error.name is None or error.name.startswith(__package__):
            raise
        _fail(f"{error.name.split('.')[0]} is not installed, which this needs: install bioner-edge whole")
    except OSError as error:  # a path that the system refuses
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        # The class of typer's own usage errors has had several places; they are told by what they can do.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        _fail(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'bioner-edge'} --help")
    raise SystemExit(code or 0)


def _fail(message: str) -> NoReturn:
    complain(message)
    raise SystemExit(2) from None
