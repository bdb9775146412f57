"""Readers for the process of a guard that end it, as a fault in native code does. Imported there by its name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError, ModelError
from bioner_edge.extraction import Extraction


class Crashing:
    """A reader that does what the first word of a text says; any other text is a Disease."""

    def __enter__(self) -> Crashing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def __call__(self, source: Document, /) -> Extraction:
        match source.text.split()[0]:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "abort":
                os.abort()
            case "exit":
                os._exit(3)
            case "refuse":
                raise InputError(f"document {source.id}: refused")
            case "fault":
                raise TypeError(source.text)
            case "starve":
                raise MemoryError
            case "print":
                os.write(1, b"noise")
            case "start":
                start(Path(source.text.split()[1]))
            case "stay":
                start(Path(source.text.split()[1]))
                time.sleep(600)
        return Extraction(source, (Entity.at("Disease", 0, len(source.text)),))


def start(path: Path) -> None:
    """Start a process, as a trial of kernels is one, and write its number into a file."""
    other = subprocess.Popen(["sleep", "600"])
    (path.parent / "new").write_text(str(other.pid))
    (path.parent / "new").rename(path)


def opening() -> tuple[Crashing, Any]:
    return Crashing(), "about"


def open_reader(**settings: Any) -> tuple[Crashing, Any]:
    """As the one of `bioner_edge.benchmarks`."""
    return opening()


def forbidden() -> tuple[Crashing, Any]:
    raise PermissionError(13, "Permission denied", "x.gguf")


def once() -> tuple[Crashing, Any]:
    """Opens one time alone: the file that says so is then gone."""
    Path(os.environ["ONCE"]).unlink()
    return opening()


def changing() -> tuple[Crashing, Any]:
    """Says something else each time."""
    return Crashing(), os.getpid()


def failing() -> tuple[Crashing, Any]:
    raise ModelError("x.gguf: cannot be loaded")


def faulty() -> tuple[Crashing, Any]:
    raise KeyError("tensor")


def starving() -> tuple[Crashing, Any]:
    raise MemoryError


def unlinked() -> tuple[Crashing, Any]:
    raise ImportError("libx.so.1: cannot open shared object file", name="x")


def dying() -> tuple[Crashing, Any]:
    os.kill(os.getpid(), signal.SIGILL)
    return opening()
