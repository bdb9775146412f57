"""`bioner-edge extract`: find entities in files, and write them where the user wants them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bioner_edge.cli.options import complain, names
from bioner_edge.cli.options import guidelines as read_guidelines

if TYPE_CHECKING:
    from bioner_edge.extraction import Extraction
    from bioner_edge.guard import Opening
    from bioner_edge.io.inputs import Inputs
    from bioner_edge.io.output import Output
    from bioner_edge.run import Outcome

__all__ = ["extract"]

_NAMED = 20  # failed documents that are listed at the end; the journal has all


def extract(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders or globs; `-` reads standard input. [default: standard input]", metavar="INPUT"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model to run: a name from `bioner-edge models`, a GGUF file or an ONNX folder. [default: the "
            "bundled model that was tuned for the format]"
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="LoRA adapter in GGUF, applied to the model at run time.", metavar="FILE")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="Output format that the model writes; `bioner-edge formats` lists them. [default: the first in the "
            "manifest]"
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Entity types to extract, comma-separated. [default: those in the manifest]")
    ] = None,
    guidelines: Annotated[
        Path | None,
        typer.Option(
            help='TOML file that explains the types, a line each: label = "what it means". [default: the guidelines '
            "in the manifest]",
            metavar="FILE",
        ),
    ] = None,
    constraint: Annotated[
        str,
        typer.Option(
            help="What the model may write: grounded (only spans of the document), gbnf (anything in the format's "
            "grammar), llama-gbnf (the same grammar in llama.cpp's own sampler) or free (anything)."
        ),
    ] = "grounded",
    min_score: Annotated[
        float, typer.Option(help="Drop entities whose score is lower than this.", min=0.0, max=1.0)
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Output file; for brat, a folder. [default: standard output]", metavar="FILE")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="File format of the output: jsonl, pubtator or brat. [default: by the suffix of --out, else jsonl]"
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="File format of the input: text, jsonl, pubtator, brat or bc2gm. [default: by the suffix, else by "
            "the content]",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Number of threads. [default: the cores of this process, within its CPU quota]", min=1),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="No effect: decoding is greedy, so every seed gives the same entities.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run into the same --out.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Like --resume, and read the documents that failed again.")
    ] = False,
    keep_annotations: Annotated[
        bool,
        typer.Option(
            "--keep-annotations",
            help="Copy the annotations of the input into the output, under the key `gold`; JSON Lines only.",
        ),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Print colored text and a table of entities instead of JSON Lines; add --out to write a file as well.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Load the model even if it seems larger than the free memory.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no warnings.")] = False,
) -> None:
    """Find entities with exact offsets and write one line of JSON per document.

    Exit code: 0 all done; 1 something failed and was named on standard error, the rest is written; 2 nothing was done.
    """
    from bioner_edge.io.inputs import Inputs
    from bioner_edge.io.output import Output

    output = Output.named(
        out,
        to,
        overwrite=overwrite,
        with_gold=keep_annotations,
        shown=show,
        resume=resume,
        retry_failed=retry_failed,
    )
    sources = Inputs(inputs or ["-"], lambda notice: complain(str(notice)), from_, annotated=keep_annotations)
    output.refuse_among(sources)
    if output.finished:
        complain(f"{out} is finished: beside it is no run to go on with; --overwrite reads everything anew")
        raise typer.Exit(0)
    opening = partial(
        _open,
        model=model,
        adapter=adapter,
        format=format,
        labels=names("--labels", labels),
        constraint=constraint,
        guidelines=read_guidelines(guidelines),
        min_score=min_score,
        threads=threads,
        force=force,
    )
    with _signals():
        try:
            outcome = _run(opening, sources, output, quiet=quiet)
        except _Interrupted as error:
            begun = output.progress and output.progress.exists()
            complain("interrupted; the same command with --resume goes on" if begun else "interrupted")
            raise typer.Exit(error.code) from None
    _conclude(outcome, output, quiet=quiet)
    raise typer.Exit(outcome.exit_code)


def _open(**options: Any) -> Any:
    """The reader of the other process: what it takes to run a model is imported there alone."""
    from bioner_edge.loading import open_reader

    return open_reader(**options)


def _run(opening: Opening, sources: Inputs, output: Output, *, quiet: bool) -> Outcome:
    """Read everything. An interruption is told, with what stays and how to go on."""
    from bioner_edge.guard import Guard, LostError
    from bioner_edge.run import OutputError, run

    with Guard(opening) as reader:
        about = reader.about
        for message in about.warnings if not quiet else []:
            complain(f"warning: {message}")
        sink = output.open(about.fingerprint)
        name = str(output.path or "standard output")
        shown = _shower(about.labels) if output.shown else None
        interrupted = False
        try:
            return run(reader, sources, sink, out=name, complain=complain, quiet=quiet, shown=shown)
        except BrokenPipeError:  # `| head` has seen enough
            raise typer.Exit(0) from None
        except (_Interrupted, OutputError, LostError) as error:
            interrupted = isinstance(error, _Interrupted)
            if not (done := sink.ledger.done if sink.ledger else 0):
                raise
            complain(str(error) or "interrupted")
            complain(f"{done} documents are kept; the same command with --resume goes on")
            raise typer.Exit(error.code if isinstance(error, _Interrupted) else 1) from None
        finally:
            sink.close(keep=interrupted)


def _conclude(outcome: Outcome, output: Output, *, quiet: bool) -> None:
    """What is said at the end of a run."""
    from bioner_edge.guard import remedy
    from bioner_edge.run import MOST_CRASHES

    if outcome.problems and not quiet:
        complain(f'{outcome.problems} problems in the answers of the model; JSON Lines name them under "problems"')
    if outcome.failed and output.path:
        for message in outcome.failed[:_NAMED]:
            complain(f"failed: {message}")
        more = len(outcome.failed) - _NAMED
        rest = f" ({more} more are in {output.progress})" if more > 0 else ""
        complain(f"{len(outcome.failed)} failed{rest}; --retry-failed tries them again")
    if outcome.crashed:
        told = f"{MOST_CRASHES} documents in a row ended the process that reads them ({outcome.crashed})"
        complain(f"{told}; {remedy(outcome.crashed)}" + ("; --retry-failed goes on" if output.path else ""))


class _Interrupted(KeyboardInterrupt):
    """A signal that asks to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C, a terminal that closes, and the system's request to end are one thing: stop, and keep what is done."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for other in before:  # one is enough: what follows keeps what is done
            signal.signal(other, signal.SIG_IGN)
        raise _Interrupted(number)

    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) and signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shower(labels: tuple[str, ...]) -> Callable[[Extraction], None]:
    from rich.console import Console

    from bioner_edge.cli.show import show

    console = Console(highlight=False)
    return lambda extraction: show(extraction, labels, console)
