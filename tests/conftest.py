"""Where the corpora lie, a tiny model, and hypothesis without deadlines: a busy machine is no failure."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny-F32.gguf"


def pytest_unconfigure() -> None:
    """llama-cpp-python opens these two files when it is imported and never closes them."""
    if module := sys.modules.get("llama_cpp._utils"):
        module.outnull_file.close()
        module.errnull_file.close()


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the corpora, which are not part of the project."""
    path = Path(os.environ.get("BIONER_CORPORA") or ROOT.parent / "shared" / "corpora")
    if not path.is_dir():
        pytest.skip(f"no corpora: {path} is no folder; set $BIONER_CORPORA")
    return path


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A Llama that has learnt three sentences and is random else, a GGUF file with its manifest; see data/make_tiny.py.
    Needs no torch."""
    return TINY


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tiny_model` is converted from, as transformers saves it."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    make = runpy.run_path(str(TINY.parent / "make_tiny.py"))["make_checkpoint"]
    return Path(make(tmp_path_factory.mktemp("tiny") / "checkpoint"))


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """A function that waits until another one finds something, and gives that back."""

    def wait(found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if value := found():
                return value
            time.sleep(0.02)
        raise AssertionError("it did not come to that")

    return wait


@pytest.fixture
def gone(until: Callable[[Callable[[], Any]], Any]) -> Callable[[int], None]:
    """A function that waits until a process is no more."""
    if not Path("/proc/self").exists():
        pytest.skip("this system does not tell its processes")

    def no_more(pid: int) -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    return lambda pid: until(lambda: no_more(pid)) and None


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, here and in processes started from here; a job in the background is started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
