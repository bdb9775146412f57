"""Read documents in a child process, so that a native crash costs one document and nothing else.

A faulting kernel, or the system when memory runs out, ends the child; the parent, which holds inputs and outputs, names
the document and starts another child for the next one. They exchange pickles over a socket pair:

    parent -> child   a function that opens a reader, then documents, one at a time
    child -> parent   what the reader says about itself, then for each document an acknowledgement, and an extraction
                      or an error

A child that ends before it has acknowledged a document was not ended by it: another one reads it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Protocol, Self

from bioner_edge.document import Document
from bioner_edge.errors import BionerError, CrashError, ModelError
from bioner_edge.extraction import Extraction
from bioner_edge.processes import describe_exit, end_group, end_with_parent, kill_group

__all__ = ["Guard", "LostError", "Opening", "Reader", "remedy"]

_ATTEMPTS = 2  # to hand over a document: a child that ended while waiting is replaced


class LostError(BionerError):
    """No child is left to read and none can be started: the run ends here, and what was written stays."""


class Reader(Protocol):
    """Reads documents; an `Extractor` is one. Raises BionerError for a document that it cannot read."""

    def __call__(self, source: Document, /) -> Extraction: ...


Opening = Callable[[], tuple[AbstractContextManager[Reader], Any]]
"""A picklable function that opens a reader and returns it with something picklable about it."""


class Guard:
    """A reader in a child process, used like the reader itself.

    `about` is what `opening` returned with it. A crashed child is replaced at the next document. A guard reads one
    document at a time; to read several at once use several guards, in threads if you like. Raises what `opening` raises
    (BionerError, OSError, ImportError), and ModelError if it crashes or memory runs out.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = pickle.dumps(opening)
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self.about = self._start()

    def _start(self) -> Any:
        """Start a child and return what its `opening` says about the reader."""
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "bioner_edge.guard", str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # native code may print, and standard output is for entities
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C goes to the parent alone, and the child's own children end with it
            )
        self._child = process, ours
        try:
            ours.send_bytes(self._opening)
            answer = ours.recv()
        except (EOFError, OSError):
            how = self._reap()
            raise ModelError(f"the process that loads the model was ended by {how}; {remedy(how)}") from None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def __call__(self, document: Document) -> Extraction:
        """Extract from a document.

        Raises CrashError if the document ended the child, LostError if no child could be started, and otherwise what
        the reader raises.
        """
        connection = self._hand_over(document)
        try:
            answer: Extraction | BionerError = connection.recv()
        except (EOFError, OSError):
            how = self._reap()
            raise CrashError(f"document {document.id}: the process that read it was ended by {how}", how) from None
        if isinstance(answer, BionerError):
            raise answer
        return answer

    def _hand_over(self, document: Document) -> Connection:
        """Send a document to a living child, and return the connection on which it will answer."""
        how = ""
        for _ in range(_ATTEMPTS):
            self._restart()
            assert self._child is not None
            connection = self._child[1]
            try:
                connection.send(document)
                connection.recv()
                return connection
            except (EOFError, OSError):
                how = self._reap()
        message = f"the process that reads was ended by {how} before it had a document, {_ATTEMPTS} times in a row"
        raise LostError(f"{message}; {remedy(how)}")

    def _restart(self) -> None:
        if self._child is not None:
            return
        try:
            about = self._start()
        except (BionerError, ImportError, OSError) as error:
            raise LostError(f"the process that reads could not be started again: {error}") from None
        if about != self.about:
            self.close()
            raise LostError("the model changed during the run; start again")

    def _reap(self) -> str:
        """Clean up a child that no longer answers, and say what ended it."""
        assert self._child is not None
        process, connection = self._child
        connection.close()
        self._child = None
        code = process.wait()
        kill_group(process)  # a trial of kernels may have outlived it
        return describe_exit(code)

    def close(self) -> None:
        """Kill the child and its own children at once."""
        if self._child:
            process, connection = self._child
            self._child = None
            connection.close()
            kill_group(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remedy(how: str) -> str:
    """What to try if the child keeps ending."""
    if "memory" in how:
        return "close other programs, or use a smaller model or level"
    return "`bioner-edge doctor` looks for the cause; --model chemdis-9m-onnx runs without llama.cpp"


# --- The child


def _serve(connection: Connection) -> None:
    """Open a reader and answer until the parent is gone."""
    opening: Opening = connection.recv()
    try:
        opened, about = opening()
    except (BionerError, ImportError, OSError) as error:
        connection.send(error)
        return
    except MemoryError:
        connection.send(ModelError(f"memory ran out while the model was loaded; {remedy('memory')}"))
        return
    except Exception as error:  # no text of a document is in it yet
        message = f"a bug in bioner-edge, please report it: {type(error).__name__}: {error} in {_location(error)}"
        connection.send(BionerError(message))
        return
    with opened as reader:
        connection.send(about)
        while True:
            document = connection.recv()
            connection.send(None)
            connection.send(_answer(reader, document))


def _answer(reader: Reader, document: Document) -> Extraction | BionerError:
    """The extraction, or why there is none. A bug of ours costs one document too; its message quotes no text."""
    try:
        return reader(document)
    except BionerError as error:
        return error
    except MemoryError:
        return CrashError(f"document {document.id}: memory ran out while it was read", "MemoryError, memory ran out")
    except Exception as error:
        where = f"{type(error).__name__} in {_location(error)}"
        return BionerError(f"document {document.id}: a bug in bioner-edge, please report it: {where}")


def _location(error: Exception) -> str:
    """The file and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _prefer_oom_kill() -> None:
    """Make the kernel kill this process when memory runs out, not the parent, which holds the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to a whole job; the parent ends this process when it is done
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    descriptor, parent = map(int, sys.argv[1:])
    os.set_inheritable(descriptor, False)
    end_with_parent(parent, descriptor)
    _prefer_oom_kill()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone or has closed the guard
        _serve(Connection(descriptor))
    end_group()
