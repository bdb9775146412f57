"""The command line: each verb calls one function. Heavy imports are deferred until a verb runs, to keep --help fast."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from bioner_edge import __version__
from bioner_edge.cli.bench import app as bench
from bioner_edge.cli.bench import compare
from bioner_edge.cli.convert import convert, verify
from bioner_edge.cli.corpora import app as corpora
from bioner_edge.cli.doctor import doctor
from bioner_edge.cli.extract import extract
from bioner_edge.cli.file_format_help import FileFormatCommand
from bioner_edge.cli.formats import app as formats
from bioner_edge.cli.models import app as models
from bioner_edge.cli.options import complain
from bioner_edge.errors import BionerError

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
app.command(cls=FileFormatCommand)(extract)
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


def main() -> NoReturn:
    """The entry point: a user's mistake is one line and exit code 2."""
    try:
        code = app(prog_name="bioner-edge", standalone_mode=False)
    except BionerError as error:
        _fail(str(error))
    except typer.Abort:
        raise SystemExit(130) from None
    except ImportError as error:
        _fail(_import_error_message(error))
    except OSError as error:  # a path that the system refuses
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:
        # typer's usage errors moved between modules; recognize them by their method.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        _fail(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'bioner-edge'} --help")
    raise SystemExit(code or 0)


def _import_error_message(error: ImportError) -> str:
    """The message for a library that is not installed or cannot be loaded. Reraises the error if it is our own
    module."""
    library = (error.name or "").split(".")[0]
    if library in ("", __package__.split(".")[0]):
        raise error
    if not isinstance(error, ModuleNotFoundError):
        return f"{library} is installed, but cannot be loaded: {error}; install it again"
    install = "'bioner-edge[llama]'" if library in ("llama_cpp", "gguf") else "bioner-edge"
    return f"this needs {library}, which is not installed: pip install {install}"


def _fail(message: str) -> NoReturn:
    complain(message)
    raise SystemExit(2) from None
