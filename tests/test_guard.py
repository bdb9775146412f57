"""The process that reads documents may end in any way: it costs the document at hand, and the others are read."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.document import Document
from bioner_edge.errors import BionerError, CrashError, InputError, ModelError
from bioner_edge.guard import Guard, LostError
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.output import Output
from bioner_edge.run import MAX_CRASHES, Outcome, run

Until = Callable[[Callable[[], Any]], Any]
SUPPORT = Path(__file__).parent / "support"


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """A guard whose reader does what a text says; see support/crashing.py."""
    with Guard(opening(monkeypatch)) as guard:
        yield guard


def opening(monkeypatch: pytest.MonkeyPatch, name: str = "opening"):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(SUPPORT))  # to pickle it here
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))  # and to find it there
    import crashing  # type: ignore[import-not-found]

    return getattr(crashing, name)


def pid(guard: Guard) -> int:
    assert guard._child
    return guard._child[0].pid


def test_a_document_is_read_in_another_process(crashing: Guard) -> None:
    document = Document("1", "asthma", title_end=2)
    found = crashing(document)
    assert crashing.about == "about" and pid(crashing) != os.getpid()
    assert (found.document, [e.mention("asthma") for e in found.entities]) == (document, ["asthma"])


@pytest.mark.parametrize(
    ("text", "how"),
    [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "exit code 3"), ("starve", "MemoryError, memory ran out")],
)
def test_a_crash_names_its_document_and_the_next_is_read(crashing: Guard, text: str, how: str) -> None:
    assert crashing(Document("1", "asthma")).entities
    with pytest.raises(CrashError, match="document 2: ") as caught:
        crashing(Document("2", text))
    assert caught.value.how == how
    assert crashing(Document("3", "asthma")).entities


def test_errors_are_those_of_the_reader(crashing: Guard) -> None:
    with pytest.raises(InputError, match="document 1: refused"):
        crashing(Document("1", "refuse"))
    with pytest.raises(BionerError, match=r"document 2: a bug in bioner-edge.* TypeError in crashing\.py:") as caught:
        crashing(Document("2", "fault private"))
    assert "private" not in str(caught.value)
    before = crashing._child
    assert crashing(Document("3", "asthma")).entities and crashing._child is before


def test_what_native_code_prints_is_no_answer(crashing: Guard, capfd: pytest.CaptureFixture[str]) -> None:
    assert crashing(Document("1", "print")).entities
    assert capfd.readouterr().out == ""


def test_a_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"^x\.gguf: cannot be loaded$"):
        Guard(opening(monkeypatch, "failing"))
    with pytest.raises(ModelError, match="loads the model was ended by SIGILL; `bioner-edge doctor`"):
        Guard(opening(monkeypatch, "dying"))
    with pytest.raises(PermissionError, match="Permission denied"):
        Guard(opening(monkeypatch, "forbidden"))
    with pytest.raises(ImportError, match=r"libx\.so\.1: cannot open"):
        Guard(opening(monkeypatch, "unlinked"))
    with pytest.raises(ModelError, match="memory ran out while the model was loaded; close other programs"):
        Guard(opening(monkeypatch, "starving"))
    told = r"^a bug in bioner-edge, please report it: KeyError: 'tensor' in crashing\.py:\d+$"
    with pytest.raises(BionerError, match=told):
        Guard(opening(monkeypatch, "faulty"))


def test_a_reader_that_cannot_be_started_again_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    for name, told in (("once", "could not be started again"), ("changing", "the model changed during the run")):
        (tmp_path / "once").touch()
        with Guard(opening(monkeypatch, name)) as guard:
            outcome, _ = read_all(guard, tmp_path, ["asthma", "segfault", "asthma", "asthma"])
            assert isinstance(outcome.stopped, LostError) and told in str(outcome.stopped)
            assert (outcome.exit_code, outcome.failures) == (1, 1)
            assert (tmp_path / "o.jsonl.partial").read_text().count("\n") == 1
            assert (tmp_path / "o.jsonl.progress").read_text().count("failed") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_job_is_the_parents(crashing: Guard, number: signal.Signals) -> None:
    os.kill(pid(crashing), number)
    assert crashing(Document("1", "asthma")).entities


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system does not tell its processes")
def test_no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with Guard(opening(monkeypatch)) as guard:
        process = Path(f"/proc/{pid(guard)}")
        score = (process / "oom_score_adj").read_text()
    assert not process.exists()
    assert int(score) >= 500  # where memory runs out it is the first to go


def test_a_process_that_ended_while_it_waited_costs_no_document(crashing: Guard) -> None:
    """The system ends it where another program takes the memory, and nothing is read."""
    for number in (signal.SIGKILL, signal.SIGSEGV):
        before = pid(crashing)
        os.kill(before, number)
        assert crashing(Document("1", "asthma")).entities and pid(crashing) != before


def test_one_that_cannot_wait_ends_a_run(crashing: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [pid(crashing)], crashing._start

    def killed() -> object:
        about = start()
        started.append(pid(crashing))
        os.kill(pid(crashing), signal.SIGKILL)
        return about

    os.kill(pid(crashing), signal.SIGKILL)
    monkeypatch.setattr(crashing, "_start", killed)
    with pytest.raises(LostError, match="SIGKILL, perhaps because memory ran out before it had a document, 2 times"):
        crashing(Document("1", "asthma"))
    assert len(started) == 2


def test_guards_are_made_in_threads_and_stay_when_these_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, guards = opening(monkeypatch), []
    threads = [threading.Thread(target=lambda: guards.append(Guard(begin))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(1.2)  # a process that looks for its parent has done so
    children = [pid(guard) for guard in guards]
    for guard in guards:
        with guard:
            assert guard(Document("1", "asthma")).entities
            assert pid(guard) in children


@pytest.mark.parametrize("word", ["start", "stay"])
def test_the_child_ends_with_its_parent_and_whatever_it_started_too(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, gone: Callable[[int], None]
) -> None:
    begin, started, child = opening(monkeypatch), tmp_path / "started", tmp_path / "child"
    parent = os.fork()
    if parent == 0:  # one that is killed
        guard = Guard(begin)
        child.write_text(str(pid(guard)))
        guard(Document("1", f"{word} {started}"))
        time.sleep(600)
    until(started.exists)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    gone(int(child.read_text()))
    gone(int(started.read_text()))


def test_a_child_ends_also_where_a_fork_of_its_parent_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until, gone: Callable[[int], None]
) -> None:
    """Which holds the other end of the connection open."""
    begin, child = opening(monkeypatch), tmp_path / "child"
    parent = os.fork()
    if parent == 0:
        guard = Guard(begin)
        if other := os.fork():
            (tmp_path / "new").write_text(f"{pid(guard)} {other}")
            (tmp_path / "new").rename(child)
        time.sleep(600)
    until(child.exists)
    mine, other = map(int, child.read_text().split())
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    gone(mine)
    os.kill(other, signal.SIGKILL)


def test_what_a_child_started_ends_when_it_is_closed(
    crashing: Guard, tmp_path: Path, gone: Callable[[int], None]
) -> None:
    started = tmp_path / "started"
    crashing(Document("1", f"start {started}"))
    crashing.close()
    gone(int(started.read_text()))


def test_what_a_child_started_ends_when_it_crashes(
    crashing: Guard, tmp_path: Path, gone: Callable[[int], None]
) -> None:
    crashing(Document("1", f"start {tmp_path / 'started'}"))
    with pytest.raises(CrashError):
        crashing(Document("2", "segfault"))
    gone(int((tmp_path / "started").read_text()))


# In a run


def read_all(guard: Guard, folder: Path, texts: list[str], **how: bool) -> tuple[Outcome, list[str]]:
    """What a run over documents of these texts comes to, and what was said."""
    source = folder / "in.jsonl"
    source.write_text("".join(f'{{"id": {n}, "text": "{text}"}}\n' for n, text in enumerate(texts)))
    told: list[str] = []
    inputs = Inputs([str(source)], lambda notice: told.append(str(notice)))
    named = {"overwrite": True, "with_gold": False, "shown": False, **how}
    output = Output.from_options(folder / "o.jsonl", None, **named)
    sink = output.open({})
    try:
        return run(guard, inputs, sink, out="o.jsonl", complain=told.append), told
    finally:
        sink.close()


def test_a_run_goes_on_after_a_crash(crashing: Guard, tmp_path: Path) -> None:
    outcome, told = read_all(crashing, tmp_path, ["asthma", "segfault", "abort", "asthma", "segfault", "asthma"])
    assert (outcome.documents, outcome.failures, outcome.exit_code, outcome.crashed) == (3, 3, 1, "")
    assert [line.split(":")[0] for line in told] == ["document 1", "document 2", "document 4"]
    assert (tmp_path / "o.jsonl").read_text().count("\n") == 3


def test_crashes_in_a_row_end_a_run(crashing: Guard, tmp_path: Path) -> None:
    outcome, told = read_all(crashing, tmp_path, ["asthma", *["segfault"] * (MAX_CRASHES + 2), "asthma"])
    assert (outcome.documents, outcome.failures, outcome.exit_code) == (1, MAX_CRASHES, 1)
    assert outcome.crashed == "SIGSEGV" and len(told) == MAX_CRASHES
    assert not (tmp_path / "o.jsonl").exists() and (tmp_path / "o.jsonl.partial").read_text().count("\n") == 1
    outcome, _ = read_all(crashing, tmp_path, ["segfault"] * MAX_CRASHES)
    assert outcome.exit_code == 2


def test_crashes_with_documents_between_them_are_not_in_a_row(crashing: Guard, tmp_path: Path) -> None:
    texts = ["segfault", "asthma"] * (MAX_CRASHES + 1)
    for how in ({"overwrite": True}, {"overwrite": False, "retry_failed": True}):
        outcome, _ = read_all(crashing, tmp_path, texts, **how)
        assert (outcome.documents, outcome.failures, outcome.crashed) == (MAX_CRASHES + 1, MAX_CRASHES + 1, "")
