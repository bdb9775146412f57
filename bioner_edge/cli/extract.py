"""`bioner-edge extract`: find entities in files and write them."""

from __future__ import annotations

import signal
import sys
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
    from bioner_edge.io.notice import Notice
    from bioner_edge.io.output import Output
    from bioner_edge.run import Outcome

__all__ = ["extract"]


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
        str | None,
        typer.Option(
            help="What the model may write: grounded (only spans of the document), gbnf (anything in the format's "
            "grammar) or free (anything). [default: the one in the manifest, else grounded]"
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(help="Drop entities whose score is lower than this.", min=0.0, max=1.0)
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Output file; for {folders}, a folder. [default: standard output]", metavar="FILE"),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="File format of the output: {written}. [default: by the suffix of --out, else {standard}]"),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="File format of the input: {read}. [default: by the suffix, else by the content]",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Number of threads. [default: the cores of this process, within its CPU quota]", min=1),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run into the same --out.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Like --resume, and read the documents that failed again.")
    ] = False,
    keep_annotations: Annotated[
        bool,
        typer.Option(
            "--keep-annotations",
            help="Copy the annotations of the input into the output, under the key `gold`; {gold_titles} only.",
        ),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Print colored text and a table of entities instead of {standard_title}; add --out to write a file as "
            "well.",
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
    from bioner_edge.hardware.threads import cores
    from bioner_edge.io.inputs import Inputs
    from bioner_edge.io.output import Output

    output = Output.from_options(
        out,
        to,
        overwrite=overwrite,
        with_gold=keep_annotations,
        shown=show,
        resume=resume,
        retry_failed=retry_failed,
    )

    def report(notice: Notice) -> None:
        if not (quiet and notice.remark):
            complain(str(notice))

    sources = Inputs(inputs or ["-"], report, from_, annotated=keep_annotations, passes=output.owns)
    output.refuse_among(sources)
    opening = partial(
        _open,
        model=model,
        adapter=adapter,
        format=format,
        labels=names("--labels", labels),
        constraint=constraint,
        guidelines=read_guidelines(guidelines),
        min_score=min_score,
        threads=threads or cores(),  # the same number in a restarted process
        force=force,
    )
    with _signals():
        try:
            outcome = _run(opening, sources, output, quiet=quiet)
        except _Interrupted as error:
            begun = output.journal and output.journal.unfinished
            complain("interrupted; the same command with --resume goes on" if begun else "interrupted")
            raise typer.Exit(error.code) from None
    _conclude(outcome, output, quiet=quiet)
    raise typer.Exit(outcome.exit_code)


def _open(**options: Any) -> Any:
    """Open the reader. Runs in the child process, so that only it imports what a model needs."""
    from bioner_edge.loading import open_reader

    return open_reader(**options)


def _run(opening: Opening, sources: Inputs, output: Output, *, quiet: bool) -> Outcome:
    """Read all inputs. On an interruption, say what is kept and how to continue."""
    from bioner_edge.guard import Guard
    from bioner_edge.run import run
    from bioner_edge.terminal import Terminal

    with Guard(opening) as reader:
        about = reader.about
        for message in about.warnings if not quiet else []:
            complain(f"warning: {message}")
        sink = output.open(about.hash_files() if output.path else about.fingerprint)
        name = str(output.path or "standard output")
        shown = _make_shower(about.labels, output) if output.shown else None
        mixed = shown is not None or (output.path is None and sys.stdout.isatty())  # documents on the same terminal
        report = Terminal(quiet=quiet, bar=not mixed)
        keep = False
        try:
            return run(reader, sources, sink, out=name, complain=complain, report=report, shown=shown)
        except BrokenPipeError:  # `| head` has seen enough
            raise typer.Exit(0) from None
        except _Interrupted as error:
            keep = True
            if not (done := sink.ledger.done if sink.ledger else 0):
                raise
            complain("interrupted")
            complain(_resume_hint(done))
            raise typer.Exit(error.code) from None
        finally:
            sink.close(keep)


def _resume_hint(documents: int) -> str:
    return f"{documents} documents are kept; the same command with --resume goes on"


def _conclude(outcome: Outcome, output: Output, *, quiet: bool) -> None:
    """Report problems and failures at the end of a run."""
    from bioner_edge.guard import LostError, remedy
    from bioner_edge.io.registry import STANDARD
    from bioner_edge.run import MAX_CRASHES, OutputError

    if outcome.problems and not quiet:
        complain(
            f'{outcome.problems} problems in the answers of the model; {STANDARD.title} list them under "problems"'
        )
    if outcome.failed and output.journal:
        for message in outcome.failed:
            complain(f"failed: {message}")
        more = outcome.failures - len(outcome.failed)
        rest = f" ({more} more are in {output.journal.progress})" if more > 0 else ""
        complain(f"{outcome.failures} failed{rest}; --retry-failed tries them again")
    if outcome.crashed:
        message = f"{MAX_CRASHES} documents in a row ended the process that reads them ({outcome.crashed})"
        complain(f"{message}; {remedy(outcome.crashed)}" + ("; --retry-failed goes on" if output.path else ""))
    if outcome.stopped:
        complain(str(outcome.stopped))
        if output.path and outcome.documents and isinstance(outcome.stopped, LostError | OutputError):
            complain(_resume_hint(outcome.documents))
    elif output.resume and not (outcome.read or outcome.exit_code or quiet):
        complain(f"{output.path} is finished: nothing was left to read")


class _Interrupted(KeyboardInterrupt):
    """A signal that requests the end of the process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def _signals() -> Iterator[None]:
    """Handle Ctrl-C, a closed terminal and SIGTERM alike: stop, and keep what is done."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for other in before:  # ignore further signals while results are saved
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


def _make_shower(labels: tuple[str, ...], output: Output) -> Callable[[Extraction], None]:
    """Make a function that shows extractions until standard output is closed (`| head`), which does not end a run into
    a file."""
    from rich.console import Console

    from bioner_edge.cli.show import show
    from bioner_edge.io.sinks import forget_stdout
    from bioner_edge.run import OutputError

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would end this process

    console: Screen | None = Screen(highlight=False)

    def shown(extraction: Extraction) -> None:
        nonlocal console
        if console is None:
            return
        try:
            show(extraction, labels, console)
        except OSError as error:
            forget_stdout()
            if not isinstance(error, BrokenPipeError):
                raise OutputError(f"standard output: cannot be written: {error.strerror}") from None
            if output.path is None:
                raise
            complain(f"standard output was closed: nothing more is shown, and all is written to {output.path}")
            console = None

    return shown
