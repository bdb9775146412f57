"""What is in the output folder while a conversion runs, when it is killed, and when several run at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.convert import work_folder
from bioner_edge.convert.about import About
from bioner_edge.convert.delivery import Delivery
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models import models_toml
from bioner_edge.models.manifest import PARTS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no locks that go with a process")


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that prints a line once it is so far."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    return process


WORKING = """
import sys
from pathlib import Path
from bioner_edge.convert import work_folder
if len(sys.argv) > 2:
    work_folder.machine_id = lambda: sys.argv[2]
with work_folder.create(Path(sys.argv[1]), "name", print) as folder:
    (folder / "file").write_text("hours of work")
    print("working", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def told() -> list[str]:
    """What was said of folders that stay."""
    return []


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def test_what_a_killed_one_left_is_swept(tmp_path: Path, told: list[str]) -> None:
    process = start(WORKING, tmp_path)
    process.kill()
    process.wait()
    (left,) = names(tmp_path)
    assert left.startswith("name.partial-")
    with work_folder.create(tmp_path, "name", told.append) as folder:
        assert names(tmp_path) == [folder.name] != [left]
    assert names(tmp_path) == [] and told == []


def test_one_that_runs_keeps_its_folder(tmp_path: Path, told: list[str]) -> None:
    process = start(WORKING, tmp_path)
    (theirs,) = tmp_path.iterdir()
    with work_folder.create(tmp_path, "name", told.append) as folder:
        assert names(tmp_path) == sorted([theirs.name, folder.name])
    assert (theirs / "file").read_text() == "hours of work" and told == []
    process.communicate()
    assert process.returncode == 0 and names(tmp_path) == []


def test_the_process_number_says_nothing(tmp_path: Path) -> None:
    """In a container of its own the other one has a number that is nobody's here, or somebody else's."""
    process = start(WORKING, tmp_path)
    (theirs,) = tmp_path.iterdir()
    kill = os.kill

    def gone(number: int, signal_: int) -> None:
        if signal_ == 0:
            raise ProcessLookupError
        kill(number, signal_)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "kill", gone)
        with Delivery.into(tmp_path, About.of([tmp_path], name="name"), ["name-F32.gguf"], overwrite=False):
            assert (theirs / "file").exists()
    process.communicate()


def test_another_machines_work_is_left_to_it(tmp_path: Path, told: list[str]) -> None:
    """On a disk that machines share, a lock may count on one of them alone: this one is not held at all."""
    process = start(WORKING, tmp_path, "0123456789ab")
    process.kill()
    process.wait()
    (theirs,) = tmp_path.iterdir()
    with work_folder.create(tmp_path, "name", told.append):
        pass
    assert (theirs / "file").exists()
    assert told == [
        f"{theirs} (0.0 GB) was left by a killed conversion, unless one is running on another machine; "
        f"to remove it: rm -r {theirs}"
    ]


@pytest.mark.parametrize(
    ("number", "swept"),
    [("0123456789abcdef0123456789abcdef\n", True), (None, False), ("", False), ("uninitialized\n", False)],
)
def test_what_was_left_before_a_restart(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, number: str | None, swept: bool
) -> None:
    """The machine is known by its number; where it has none, what was left is at least named."""
    out, machine, boot = tmp_path / "out", tmp_path / "machine-id", tmp_path / "boot_id"
    out.mkdir()
    if number is not None:
        machine.write_text(number)
    monkeypatch.setattr(work_folder, "_MACHINE", machine)
    monkeypatch.setattr(work_folder, "_BOOT", boot)
    boot.write_text("one start")
    process = start(WORKING, out, work_folder.machine_id())
    process.kill()
    process.wait()
    boot.write_text("the next")
    (left,) = out.iterdir()
    with work_folder.create(out, "name", told.append):
        assert left.exists() != swept
    assert [str(left) in line for line in told] == [True] * (not swept)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.EBADF, errno.ENOSYS])
def test_on_a_disk_without_locks_nothing_is_swept_and_work_goes_on(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    process = start(WORKING, tmp_path)
    process.kill()
    process.wait()
    (left,) = tmp_path.iterdir()
    calls = []

    def refused(*arguments: Any) -> None:
        calls.append(arguments)
        assert len(calls) < 50
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with work_folder.create(tmp_path, "name", told.append) as folder:
        assert folder.is_dir() and (left / "file").exists()
    assert names(tmp_path) == [left.name]
    assert len(told) == 1 and told[0].startswith(str(left))


def test_a_folder_that_may_not_be_opened_is_worked_in_all_the_same(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where too many files are open for a lock."""
    opened, calls = os.open, []

    def refused(path: Any, *arguments: Any, **more: Any) -> int:
        if Path(path).name.startswith("name.partial-"):
            calls.append(path)
            assert len(calls) < 50
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refused)
    with work_folder.create(tmp_path, "name", told.append) as folder:
        assert folder.is_dir()


@pytest.mark.parametrize("other", ["name.partial-notes", "name.partial-123-x", "other.partial-1", "name", "name-2"])
def test_what_is_not_ours_stays(tmp_path: Path, told: list[str], other: str) -> None:
    (tmp_path / other).mkdir()
    with work_folder.create(tmp_path, "name", told.append):
        pass
    assert names(tmp_path) == [other]


def test_swept_before_it_was_locked(tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making a folder and locking it there is a moment for another sweep."""
    opened, swept = os.open, []

    def late(path: Any, *arguments: Any, **more: Any) -> int:
        if Path(path).name.startswith("name.partial-") and not swept:
            swept.append(path)
            shutil.rmtree(path)
        return opened(path, *arguments, **more)

    monkeypatch.setattr(os, "open", late)
    with work_folder.create(tmp_path, "name", told.append) as folder:
        assert swept and Path(swept[0]) != folder and folder.is_dir()
    assert names(tmp_path) == []


# --- A folder in the place of another


def model(folder: Path, text: str) -> Path:
    """The files of a model, all with one text: a mixture of two would show."""
    folder.mkdir(parents=True)
    for name in (*PARTS, "manifest.json"):
        (folder / name).write_text(text)
    return folder


def whole(folder: Path) -> str:
    """The text of a folder that has all its files."""
    (text,) = {(folder / name).read_text() for name in (*PARTS, "manifest.json")}
    return text


REPLACING = """
import os, signal, sys, shutil
from pathlib import Path
from bioner_edge.convert import work_folder
step, after, left = int(sys.argv[2]), sys.argv[3] == "after", [0]

def dying(inner):
    def call(*arguments, **more):
        left[0] += 1
        if left[0] == step and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        inner(*arguments, **more)
        if left[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

os.rename = dying(os.rename)
shutil.rmtree = dying(shutil.rmtree)
out = Path(sys.argv[1])
work_folder.place(out / "work" / "x-onnx", out / "x-onnx")
"""


@pytest.mark.thorough(but=("1-*", "2-before"))
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_at_any_step_a_whole_one_is_there_or_comes_back(tmp_path: Path, step: int, moment: str) -> None:
    target = model(tmp_path / "x-onnx", "old")
    model(tmp_path / "work" / "x-onnx", "new")
    killed = subprocess.run([sys.executable, "-c", REPLACING, str(tmp_path), str(step), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    done = (step, moment) in ((2, "after"), (3, "before"), (3, "after"))
    if target.exists():
        assert whole(target) == ("new" if done else "old")
    else:
        assert whole(tmp_path / "x-onnx.partial-replaced") == "old" and not done
    about = About.of([tmp_path], name="x")
    told = "x-onnx: exists; give --overwrite"  # it has its name again
    with pytest.raises(UsageError, match=told), Delivery.into(tmp_path, about, ["x-onnx"], overwrite=False):
        pass
    assert whole(target) == ("new" if done else "old") and not (tmp_path / "x-onnx.partial-replaced").exists()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_leaves_the_old_one(tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def failing_once(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    target = model(tmp_path / "x-onnx", "old")
    about = About.of([tmp_path], name="x")
    monkeypatch.setattr(os, "rename", failing_once)
    told = "No space left on device; not every file has its final name"
    with pytest.raises(ModelError, match=told), Delivery.into(tmp_path, about, ["x-onnx"], overwrite=True) as delivery:
        delivery._paths.append(model(delivery.work / "x-onnx", "new"))
        delivery.finish()
    assert whole(target) == "old" and names(tmp_path) == ["x-onnx"]


def test_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_toml, "write_list", lambda out: out)  # these are no models that a list could know
    target = model(tmp_path / "x-onnx", "old")
    with Delivery.into(tmp_path, About.of([tmp_path], name="x"), ["x-onnx"], overwrite=True) as delivery:
        delivery._paths.append(model(delivery.work / "x-onnx", "new"))
        assert delivery.finish() == [target]
    assert whole(target) == "new" and names(tmp_path) == ["x-onnx"]
