"""Read documents in a process of their own, so that a native crash costs the document at hand and nothing else.

A kernel that faults, or the system when memory runs out, ends the process that reads; the one that holds inputs and
outputs goes on, names the document, and starts another reader for the next. Both speak pickles over a socket pair:

    parent -> child   a function that opens a reader, then documents, one at a time
    child -> parent   what the reader says about itself, then for each document that it is there, and an extraction or
                      an error

A process that ends before it has said that a document is there was not ended by it: another one reads it.
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

_ATTEMPTS = 2  # to hand over a document: a process that ended while it waited is replaced


class LostError(BionerError):
    """There is no process any more that reads: a run ends here, and what was done stays."""


class Reader(Protocol):
    """Whatever reads a document; an `Extractor` is one. Raises BionerError for a document that it cannot read."""

    def __call__(self, source: Document, /) -> Extraction: ...


Opening = Callable[[], tuple[AbstractContextManager[Reader], Any]]
"""A picklable function that opens a reader, and says something about it that can be pickled too."""


class Guard:
    """A reader that lives in a child process; used as the reader itself is.

    `about` is what `opening` said beside it. A child that crashed is replaced when the next document comes. A guard
    reads one document at a time: for several at once take several, in threads if you like. Raises what `opening` raises
    (BionerError, OSError, ImportError), and ModelError where it crashes or memory runs out.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = pickle.dumps(opening)
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self.about = self._start()

    def _start(self) -> Any:
        """Start a child; what its opening said."""
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "bioner_edge.guard", str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what native code prints is no entity
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is the parent's, and what the child starts ends with it
            )
        self._child = process, ours
        try:
            ours.send_bytes(self._opening)
            answer = ours.recv()
        except (EOFError, OSError):
            how = self._ended()
            raise ModelError(f"the process that loads the model was ended by {how}; {remedy(how)}") from None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def __call__(self, document: Document) -> Extraction:
        """The extraction of a document.

        Raises CrashError where reading it ended the process, LostError where none could be started in its place, and
        else what the reader raises.
        """
        connection = self._hand_over(document)
        try:
            answer: Extraction | BionerError = connection.recv()
        except (EOFError, OSError):
            how = self._ended()
            raise CrashError(f"document {document.id}: the process that read it was ended by {how}", how) from None
        if isinstance(answer, BionerError):
            raise answer
        return answer

    def _hand_over(self, document: Document) -> Connection:
        """Send a document to a child that is there to read it; the connection on which the answer will come."""
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
                how = self._ended()
        told = f"the process that reads was ended by {how} before it had a document, {_ATTEMPTS} times in a row"
        raise LostError(f"{told}; {remedy(how)}")

    def _restart(self) -> None:
        if self._child is not None:
            return
        try:
            about = self._start()
        except (BionerError, ImportError, OSError) as error:
            raise LostError(f"the process that reads could not be started again: {error}") from None
        if about != self.about:
            self.close()
            raise LostError("the model is not the one any more with which the run was begun")

    def _ended(self) -> str:
        """What ended a child that no longer answers."""
        assert self._child is not None
        process, connection = self._child
        connection.close()
        self._child = None
        code = process.wait()
        kill_group(process)  # a trial of kernels may have outlived it
        return describe_exit(code)

    def close(self) -> None:
        """End the child at once, whatever it is doing, and what it has started."""
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
    """What to try where the process that reads is ended again and again."""
    if "memory" in how:
        return "end other programs, or take a smaller model or level"
    return "`bioner-edge doctor` looks for the cause; --model chemdis-9m-onnx runs without llama.cpp"


# --- The child


def _serve(connection: Connection) -> None:
    """Open a reader, and answer until the parent is gone."""
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
        told = f"a fault of bioner-edge, please report it: {type(error).__name__}: {error} in {_place(error)}"
        connection.send(BionerError(told))
        return
    with opened as reader:
        connection.send(about)
        while True:
            document = connection.recv()
            connection.send(None)
            connection.send(_answer(reader, document))


def _answer(reader: Reader, document: Document) -> Extraction | BionerError:
    """The extraction, or why there is none. A fault of ours is one document's too; it is told without its text."""
    try:
        return reader(document)
    except BionerError as error:
        return error
    except MemoryError:
        return CrashError(f"document {document.id}: memory ran out while it was read", "MemoryError, memory ran out")
    except Exception as error:
        where = f"{type(error).__name__} in {_place(error)}"
        return BionerError(f"document {document.id}: a fault of bioner-edge, please report it: {where}")


def _place(error: Exception) -> str:
    """The file and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _be_killed_first() -> None:
    """Where memory runs out, the kernel shall end this process, not the one that holds the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    for asked in ("SIGINT", "SIGTERM", "SIGHUP"):  # of all processes of a job; the parent ends this one when it is done
        signal.signal(getattr(signal, asked), signal.SIG_IGN)
    descriptor, parent = map(int, sys.argv[1:])
    os.set_inheritable(descriptor, False)
    end_with_parent(parent, descriptor)
    _be_killed_first()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone, or has enough
        _serve(Connection(descriptor))
    end_group()
