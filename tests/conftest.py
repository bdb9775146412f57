"""Where the corpora lie, a tiny model, the command line in this process, and how much is run.

With BIONER_THOROUGH=1 everything is; else some cases of a test stand for all of them, and hypothesis tries fewer
examples. It has no deadlines: a busy machine is no failure.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each: more wait for each other, and take far longer
    os.environ.setdefault("OMP_NUM_THREADS", "1")

THOROUGH = os.environ.get("BIONER_THOROUGH") == "1"
settings.register_profile("usual", deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=100)
settings.load_profile("thorough" if THOROUGH else "usual")

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny-F32.gguf"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `thorough`, unless it is asked for."""
    if THOROUGH:
        return
    left_out = [item for item in items if any(_leaves_out(mark, item.name) for mark in item.iter_markers("thorough"))]
    items[:] = [item for item in items if item not in set(left_out)]
    config.hook.pytest_deselected(items=left_out)


def _leaves_out(mark: pytest.Mark, name: str) -> bool:
    """A mark leaves out all cases, or those whose id matches one of `only`, and none whose id matches one of `but`."""
    case = name.partition("[")[2].removesuffix("]")
    only, but = mark.kwargs.get("only", ("*",)), mark.kwargs.get("but", ())
    return any(fnmatchcase(case, p) for p in only) and not any(fnmatchcase(case, p) for p in but)


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
def tiny_checkpoint(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """What `tiny_model` is converted from, as transformers saves it."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return made_once("tiny-checkpoint", runpy.run_path(str(TINY.parent / "make_tiny.py"))["make_checkpoint"])


class InProcess:
    """A guard without a process of its own, which would take half a second for each command."""

    def __init__(self, opening: Any) -> None:
        self._reader, self.about = opening()

    def __call__(self, document: Any) -> Any:
        return self._reader(document)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__(None, None, None)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`extract` reads in this process."""
    monkeypatch.setattr("bioner_edge.guard.Guard", InProcess)


@pytest.fixture
def tiny_default(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is the one that is used where none is named."""
    monkeypatch.setattr("bioner_edge.models.registry.default", lambda format=None: str(tiny_model))


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench` measures in this process, where it would start one, of two seconds, for each reading; it takes the
    memory to be as fast as any."""
    from bioner_edge.benchmarks.measuring import child
    from bioner_edge.benchmarks.process import Failure, describe_error
    from bioner_edge.errors import BionerError

    def here(module: str, spec: dict[str, Any], *_: object) -> dict[str, Any]:
        if module.endswith("bandwidth"):
            return {"copy_bytes_per_s": 1e10}
        try:
            answer: dict[str, Any] = json.loads(json.dumps(child.run(spec)))
        except (BionerError, OSError) as error:
            raise Failure(describe_error(error)) from None
        return answer

    monkeypatch.setattr(child, "Guard", InProcess)
    for module in ("launch", "suite"):
        monkeypatch.setattr(f"bioner_edge.benchmarks.{module}.run_module", here)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has no pictures, which take two seconds; for tests of what else it says."""
    monkeypatch.setattr("bioner_edge.benchmarks.report.plots.draw", lambda groups: [])


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    """The command line in this process, in an empty folder: a function (*arguments, stdin=b"") -> (exit code, standard
    output, lines of standard error)."""
    from bioner_edge.cli import main

    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["bioner-edge", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exited:
            main()
        code = exited.value.code
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return command


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function (name, make) -> a folder that `make` has filled, once for all processes of this run of pytest: the
    others wait. What fails in one is tried again by the next."""
    fcntl = pytest.importorskip("fcntl")
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


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
