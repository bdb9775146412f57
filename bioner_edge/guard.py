"""Read documents in a process of their own, so that a native crash costs the document at hand and nothing else.

A kernel that faults, or the system when memory runs out, ends the process that reads; the one that holds inputs and
outputs goes on, names the document, and starts another reader for the next. Both speak pickles over a socket pair:

    parent -> child   a function that opens a reader, then documents, one at a time
    child -> parent   what the reader says about itself, then an extraction or an error for each document
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

__all__ = ["Guard", "LostError", "Opening", "Reader", "remedy"]


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
    reads one document at a time: for several at once take several. Raises what `opening` raises (BionerError, OSError,
    ModuleNotFoundError), and ModelError where it crashes.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = pickle.dumps(opening)
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None
        self.about = self._start()

    def _start(self) -> Any:
        """Start a child; what its opening said."""
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "bioner_edge.guard", str(theirs.fileno())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what native code prints is no entity
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is the parent's: it decides what becomes of the document at hand
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
        self._restart()
        assert self._child is not None
        try:
            self._child[1].send(document)
            answer: Extraction | BionerError = self._child[1].recv()
        except (EOFError, OSError):
            how = self._ended()
            raise CrashError(f"document {document.id}: the process that read it was ended by {how}", how) from None
        if isinstance(answer, BionerError):
            raise answer
        return answer

    def _restart(self) -> None:
        if self._child is not None:
            return
        try:
            about = self._start()
        except (BionerError, ModuleNotFoundError, OSError) as error:
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
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name

    def close(self) -> None:
        """End the child at once, whatever it is doing."""
        if self._child:
            process, connection = self._child
            self._child = None
            connection.close()
            process.kill()
            process.wait()

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
    except (BionerError, ModuleNotFoundError, OSError) as error:
        connection.send(error)
        return
    with opened as reader:
        connection.send(about)
        while True:
            connection.send(_answer(reader, connection.recv()))


def _answer(reader: Reader, document: Document) -> Extraction | BionerError:
    """The extraction, or why there is none. A fault of ours is one document's too; it is told without its text."""
    try:
        return reader(document)
    except BionerError as error:
        return error
    except MemoryError:
        return CrashError(f"document {document.id}: memory ran out while it was read", "MemoryError, memory ran out")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
        return BionerError(f"document {document.id}: a fault of bioner-edge, please report it: {where}")


def _be_killed_first() -> None:
    """Where memory runs out, the kernel shall end this process, not the one that holds the results."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _end_with_parent() -> None:
    """A parent that is killed cannot end its child: on Linux the system does, elsewhere the next answer fails."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    for asked in ("SIGINT", "SIGTERM", "SIGHUP"):  # of all processes of a job; the parent ends this one when it is done
        signal.signal(getattr(signal, asked), signal.SIG_IGN)
    _end_with_parent()
    _be_killed_first()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone, or has enough
        _serve(Connection(int(sys.argv[1])))
    os._exit(0)  # the system frees faster than libraries do
