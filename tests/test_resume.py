"""Nothing that was done is lost: a run that is killed and taken up again ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioner_edge.document import Document, Entity
from bioner_edge.errors import BionerError, InputError, UsageError
from bioner_edge.extraction import Extraction
from bioner_edge.io import journal
from bioner_edge.io.entries import Entry, JournalFiles, align
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.ledger import Ledger
from bioner_edge.io.output import Output
from bioner_edge.io.registry import FILE_FORMATS
from bioner_edge.run import Outcome, run

SUPPORT = Path(__file__).parent / "support"
KILLABLE = SUPPORT / "killable.py"
SUFFIX = {"jsonl": ".jsonl", "pubtator": ".pubtator", "brat": "", "mentions": ".mentions"}
"""Of outputs, by file format. The one that CONTRIBUTING.md shows has a header, separators and a footer."""


@pytest.fixture(autouse=True)
def mentions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILE_FORMATS, "mentions", runpy.run_path(str(SUPPORT / "contributing.py"))["load"]())


def corpus(folder: Path, count: int) -> Path:
    """Documents of different lengths; ids repeat, and so do texts."""
    path = folder / "in.jsonl"
    texts = [f"The {'GENE ' * (n % 7)}of case {n % 11}." for n in range(count)]
    path.write_text("".join(json.dumps({"id": n // 2, "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder, by name; not of the journal of a finished run."""
    files = [p for p in path.rglob("*") if p.is_file() and p.name != ".finished"] if path.is_dir() else [path]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


def killable(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(KILLABLE), *map(str, arguments)], stderr=subprocess.PIPE)


@pytest.mark.thorough(but=("pubtator-10",))
@pytest.mark.parametrize(("file_format", "kills"), [("jsonl", 25), ("pubtator", 10), ("brat", 15), ("mentions", 15)])
def test_killed_at_random_and_taken_up_again_it_ends_with_the_same_bytes(
    tmp_path: Path, file_format: str, kills: int
) -> None:
    source = corpus(tmp_path, 600)
    whole, out = tmp_path / f"whole{SUFFIX[file_format]}", tmp_path / f"out{SUFFIX[file_format]}"
    assert killable(source, whole, file_format).wait() == 1  # some fail
    generator, killed, ended = random.Random(file_format), 0, None
    for _ in range(500):
        process = killable(source, out, file_format, "resume")
        if killed < kills:
            deadline = time.monotonic() + generator.uniform(0.1, 0.45)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if process.poll() is None:
                process.kill()
                killed += 1
        ended = process.wait()
        assert ended in (1, -9), process.stderr and process.stderr.read()
        if ended == 1:
            if killed == kills:
                break
            # Done before all kills: the ends of a run are where they matter most, so its last part is done again.
            progress = next(p for p in (out / ".progress", tmp_path / f"{out.name}.progress") if p.exists())
            lines = progress.read_bytes().splitlines(keepends=True)
            if file_format == "brat":
                progress.write_bytes(b"".join(lines[: -len(lines) // 3]))
            else:
                os.replace(out, tmp_path / f"{out.name}.partial")
                progress.write_bytes(b"".join(lines[: -len(lines) // 3]))
    assert killed == kills and ended == 1
    mine, theirs = contents(out), contents(whole)
    assert mine.pop(".progress", b"").count(b'"failed"') == theirs.pop(".progress", b"").count(b'"failed"')
    assert mine == theirs
    left = {p.name for p in tmp_path.iterdir() if p.suffix != ".finished"} - {source.name, out.name, whole.name}
    assert left <= {f"{out.name}.progress", f"{whole.name}.progress"}


@pytest.mark.parametrize("file_format", SUFFIX)
def test_failed_documents_are_tried_again_in_their_places(tmp_path: Path, file_format: str) -> None:
    source = corpus(tmp_path, 60)
    whole, out = tmp_path / f"whole{SUFFIX[file_format]}", tmp_path / f"out{SUFFIX[file_format]}"
    assert killable(source, whole, file_format, "retry").wait() == 0  # in one go, nothing fails
    assert killable(source, out, file_format).wait() == 1
    assert killable(source, out, file_format, "resume").wait() == 1  # they are known, and not tried again
    process = killable(source, out, file_format, "retry")
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert killable(source, out, file_format, "retry").wait() == 0
    assert contents(out) == contents(whole)
    assert not [p.name for p in tmp_path.iterdir() if "progress" in p.name or "partial" in p.name]


# In this process, one thing after the other


class Script:
    """A reader that finds "Naloxone"; it fails on what `failing` names, and stops before what `stop` names."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.stop: str | None = None
        self.read: list[str] = []

    def __call__(self, document: Document, /) -> Extraction:
        if document.id == self.stop:
            raise KeyboardInterrupt
        self.read.append(document.id)
        if document.id in self.failing:
            raise InputError(f"document {document.id}: fails")
        at = document.text.find("Naloxone")
        return Extraction(document, () if at < 0 else (Entity.at("Drug", at, at + 8),))


Attempt = Callable[..., Outcome]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def attempt(script: Script, tmp_path: Path) -> Attempt:
    """A function (texts, settings=…, **how) that runs over documents a, b, c … into o.jsonl, or another `out`."""

    def begin(texts: list[str], settings: dict[str, Any] | None = None, out: str = "o.jsonl", **how: Any) -> Outcome:
        source = tmp_path / "in.jsonl"
        rows = [{"id": chr(97 + n), "text": text} for n, text in enumerate(texts)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {"model": "m", "labels": ["Drug"]} if settings is None else settings
        return go(script, [source], tmp_path / out, settings, **how)

    return begin


def go(reader: Script, sources: list[Path], out: Path, settings: dict[str, Any], **how: Any) -> Outcome:
    kind = how.pop("to", None)
    named = {"overwrite": False, "with_gold": False, "shown": False, **how}
    inputs = Inputs([str(source) for source in sources], lambda notice: None)
    with closing(Output.from_options(out, kind, **named).open(settings)) as sink:
        return run(reader, inputs, sink, out=out.name, complain=lambda told: None)


TEXTS = ["Naloxone.", "Two.", "Three.", "Naloxone again."]


def names(folder: Path) -> set[str]:
    """What lies in a folder beside the input and the journal of a finished run."""
    return {p.name for p in folder.iterdir() if not p.name.endswith(".finished")} - {"in.jsonl"}


def broken_off(script: Script, attempt: Attempt, before: str, **how: Any) -> None:
    script.stop = before
    with pytest.raises(KeyboardInterrupt):
        attempt(TEXTS, **how)
    script.stop = None
    script.read.clear()


def test_only_what_is_missing_is_read(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    broken_off(script, attempt, "c")
    assert names(tmp_path) == {"o.jsonl.partial", "o.jsonl.progress"}
    with pytest.raises(UsageError, match=r"--resume continues it, --overwrite starts over"):
        attempt(TEXTS)
    outcome = attempt(TEXTS, resume=True)
    assert (script.read, outcome.documents, outcome.entities, outcome.exit_code) == (["c", "d"], 4, 2, 0)
    assert names(tmp_path) == {"o.jsonl"}
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        attempt(TEXTS)


def test_other_settings_are_refused_and_named(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    broken_off(script, attempt, "c")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r'labels was \["Drug"\], now \["Gene"\]; threshold was null, now 1; start'):
        attempt(TEXTS, {"model": "m", "labels": ["Gene"], "threshold": 1}, resume=True)
    with pytest.raises(UsageError, match="to was jsonl, now pubtator"):
        attempt(TEXTS, resume=True, to="pubtator")
    assert contents(tmp_path) == before and not script.read
    assert attempt(TEXTS, {"model": "m", "labels": ["Gene"]}, overwrite=True).documents == 4


def test_other_inputs_are_refused_and_named(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    broken_off(script, attempt, "c")
    with pytest.raises(UsageError, match=r"in\.jsonl: document 2, b, is not the one that was read before \(b\)"):
        attempt(["Naloxone.", "2.", *TEXTS[2:]], resume=True)
    with pytest.raises(
        UsageError, match=r"1 documents that were read before are missing now, the first is document 2 of in"
    ):
        attempt(TEXTS[:1], resume=True)
    assert attempt([*TEXTS, "More."], resume=True).documents == 5  # those behind may be new


def test_a_document_that_fails_leaves_a_place(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    script.failing = {"b"}
    outcome = attempt(TEXTS)
    assert (outcome.exit_code, outcome.failed) == (1, ["document b: fails"])
    assert names(tmp_path) == {"o.jsonl", "o.jsonl.progress"}
    script.read.clear()
    assert attempt(TEXTS, resume=True).failed == ["document b: fails"] and script.read == []
    assert attempt(TEXTS, retry_failed=True).failed == ["document b: fails"] and script.read == ["b"]
    assert [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == ["a", "c", "d"]
    script.failing = set()
    assert attempt(TEXTS, retry_failed=True).exit_code == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == list("abcd")
    assert names(tmp_path) == {"o.jsonl"}


def test_documents_of_one_name_in_a_folder(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    broken_off(script, attempt, "c", out="o", to="brat")
    assert names(tmp_path / "o") == {"a.txt", "a.ann", "b.txt", "b.ann", ".progress"}
    with pytest.raises(UsageError, match="has an unfinished run"):
        attempt(TEXTS, out="o", to="brat")
    (tmp_path / "o" / "b.ann").unlink()
    with pytest.raises(UsageError, match="the files of document b are missing"):
        attempt(TEXTS, out="o", to="brat", resume=True)
    (tmp_path / "o" / "b.ann").touch()
    assert attempt(TEXTS, out="o", to="brat", resume=True).exit_code == 0
    assert names(tmp_path / "o") == {f"{name}.{suffix}" for name in "abcd" for suffix in ("txt", "ann")}


def test_what_a_disk_lost_is_done_again(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    attempt(TEXTS, out="whole.jsonl")
    broken_off(script, attempt, "d")
    partial = tmp_path / "o.jsonl.partial"
    data = bytearray(partial.read_bytes())
    data[data.index(b"Two")] ^= 1
    partial.write_bytes(data)
    progress = tmp_path / "o.jsonl.progress"
    progress.write_bytes(progress.read_bytes() + b'{"input": "in.jsonl", "index": 3, "id": "d", "ha')
    attempt(TEXTS, resume=True)
    assert script.read == ["b", "c", "d"]
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    broken_off(script, attempt, "d", out="p.jsonl")
    (tmp_path / "p.jsonl.partial").unlink()
    with pytest.raises(UsageError, match=r"p\.jsonl\.partial: missing"):
        attempt(TEXTS, out="p.jsonl", resume=True)


def test_a_full_disk_keeps_what_was_written(
    script: Script, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(TEXTS, out="whole.jsonl")
    append, count = journal.append, 0

    def full(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise OSError(28, "No space left on device")
        append(*arguments)

    monkeypatch.setattr(journal, "append", full)
    outcome = attempt(TEXTS)
    assert str(outcome.stopped) == "o.jsonl: cannot be written: No space left on device" and outcome.exit_code == 1
    attempt(TEXTS, resume=True)
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
@pytest.mark.parametrize("file_format", ["jsonl", "brat", "mentions"])
def test_a_disk_that_is_really_full(tmp_path: Path, file_format: str) -> None:
    """A limit on the size of files stands for it: what does not fit is not written, and may not fail again later."""
    source = corpus(tmp_path, 60)
    whole, out = tmp_path / f"whole{SUFFIX[file_format]}", tmp_path / f"out{SUFFIX[file_format]}"
    assert killable(source, whole, file_format).wait() == 1

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    command = [sys.executable, str(KILLABLE), str(source), str(out), file_format]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 1 and "cannot be written: File too large" in done.stderr
    assert killable(source, out, file_format, "resume").wait() == 1
    mine, theirs = contents(out), contents(whole)
    mine.pop(".progress", None), theirs.pop(".progress", None)
    assert mine == theirs


def test_an_id_that_is_empty(script: Script, tmp_path: Path) -> None:
    source = tmp_path / "e.jsonl"
    source.write_text("".join(json.dumps({"id": name, "text": "x"}) + "\n" for name in ("", "", "z")))
    script.stop = "z"
    with pytest.raises(KeyboardInterrupt):
        go(script, [source], tmp_path / "o.jsonl", {})
    script.stop = None
    assert go(script, [source], tmp_path / "o.jsonl", {}, resume=True).documents == 3


def test_a_file_that_could_not_be_read_takes_its_place_once_it_can(script: Script, tmp_path: Path) -> None:
    sources, out = [tmp_path / f"{name}.txt" for name in "abc"], tmp_path / "o.jsonl"
    for source in sources:
        source.write_bytes(b"na\xefve" if source.stem == "b" else b"Naloxone.")
    outcome = go(script, sources, out, {})
    assert outcome.exit_code == 1 and ["b.txt" in told for told in outcome.failed] == [True]
    assert out.exists() and (tmp_path / "o.jsonl.progress").exists()
    sources[1].write_text("naive")
    assert go(script, sources, out, {}, retry_failed=True).exit_code == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["a.txt", "b.txt", "c.txt"]
    assert not (tmp_path / "o.jsonl.progress").exists()


def test_labels_that_a_folder_would_merge_are_refused_at_once(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="brat writes the labels 'A b' and 'A_b' alike, 'A_b'; rename one"):
        attempt(TEXTS, {"labels": ["A b", "A_b"]}, out="o", to="brat")
    assert not (tmp_path / "o").exists() and not script.read


def test_two_processes_never_write_to_one_file(script: Script, attempt: Attempt, tmp_path: Path) -> None:
    other = Ledger(JournalFiles.beside(tmp_path / "o.jsonl"), {}, resume=False)
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match="another process is writing to it"):
            attempt(TEXTS, **how)
    other.close()


@pytest.mark.parametrize(
    ("data", "line"), [(b"x\n", 1), (b"{}\n", 1), (b'{"kind": "complete"}\n', 1), (b'{"kind": "run"}\n', 1)]
)
def test_a_file_that_is_no_journal_is_left_alone(attempt: Attempt, tmp_path: Path, data: bytes, line: int) -> None:
    (tmp_path / "o.jsonl.progress").write_bytes(data)
    with pytest.raises(BionerError, match=rf"o\.jsonl\.progress:{line}: not a line"):
        attempt(TEXTS, resume=True)
    assert (tmp_path / "o.jsonl.progress").read_bytes() == data


def test_options_that_exclude_each_other(attempt: Attempt) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        attempt(TEXTS, resume=True, overwrite=True)
    with pytest.raises(UsageError, match="need --out"):
        Output.from_options(None, None, overwrite=False, with_gold=False, shown=False, resume=True)


# Killed between any two steps

REPAIRED = [{"id": "a", "text": "Naloxone."}, {"id": "b", "text": "two"}, {"id": "c", "text": "three"}]


def killed_at(step: int, begin: Callable[[], object]) -> bool:
    """Whether `begin`, in a process of its own, came to the `step`-th change of a file; it was killed before it."""
    child = os.fork()
    if child == 0:
        count = 0

        def counting(function: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **how: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os._exit(9)
                return function(*arguments, **how)

            return counted

        for owner, name in ((os, "replace"), (journal, "write"), (Path, "unlink"), (Path, "write_bytes")):
            setattr(owner, name, counting(getattr(owner, name)))
        try:
            begin()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("begun", [True, False], ids=["tried again", "begun"])
@pytest.mark.parametrize("file_format", SUFFIX)
def test_killed_between_any_two_steps(script: Script, tmp_path: Path, file_format: str, begun: bool) -> None:
    """A document failed, and a line could not be read; both are mended. Nothing is lost, twice, or left behind."""
    source, out, whole = (
        tmp_path / "in.jsonl",
        tmp_path / f"o{SUFFIX[file_format]}",
        tmp_path / f"w{SUFFIX[file_format]}",
    )
    good = "".join(json.dumps(row) + "\n" for row in REPAIRED)
    source.write_text(good)
    assert go(script, [source], whole, {}, to=file_format).exit_code == 0
    for step in range(1, 100):
        for path in tmp_path.iterdir():
            if path.name.strip(".").startswith("o"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        source.write_text(good.replace('{"id": "b"', "{"))
        script.failing = {"a"}
        if begun:
            assert go(script, [source], out, {}, to=file_format).exit_code == 1
        source.write_text(good)
        script.failing = set()
        if not killed_at(step, lambda: go(script, [source], out, {}, to=file_format, retry_failed=True)):
            break
        left = {path.name for path in tmp_path.iterdir()}
        assert not {f".{out.name}.finished", f"{out.name}.partial"} <= left, "nobody would take it away"
        assert go(script, [source], out, {}, to=file_format, retry_failed=True).exit_code == 0
        assert contents(out) == contents(whole)
        assert names(tmp_path) == {out.name, whole.name}
        script.read.clear()
        assert go(script, [source], out, {}, to=file_format, resume=True).exit_code == 0 and script.read == []
    assert step > 6


# Which document is which, once an input was repaired


HASHES = st.lists(st.sampled_from(["a1", "a2", "a3", "b1", "b2", "c1"]), max_size=9)


@given(HASHES, HASHES)
def test_documents_are_told_apart_by_what_they_are(then: list[str], hashes: list[str]) -> None:
    before = [Entry("in", index, hash[0], hash) for index, hash in enumerate(then)]
    now = [(hash[0], hash) for hash in hashes]
    indexes, changed, gone = align(before, now)
    assert len(indexes) == len(now) == len(set(indexes))
    by_index = {entry.index: entry for entry in before}
    same = Counter(entry.hash for entry in before) & Counter(hash for _, hash in now)
    found = [by_index[i].hash == hash for i, (_, hash) in zip(indexes, now, strict=True) if i in by_index]
    assert sum(found) == same.total() and len(changed) == len(before) - same.total()
    taken = [by_index[i].id == identifier for i, (identifier, _) in zip(indexes, now, strict=True) if i in by_index]
    assert all(taken) and len(gone) == len(before) - len(taken)
    assert all(entry in changed and entry.index not in indexes for entry in gone)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.data())
def test_what_was_not_repaired_keeps_its_place(ids: list[str], data: st.DataObject) -> None:
    """Documents of which some are still to come, and one more between them."""
    now = [(identifier, f"{identifier}{n}") for n, identifier in enumerate(ids)]
    new = data.draw(st.integers(0, len(now) - 1))
    done = data.draw(st.integers(0, len(now) - 1))
    before = [Entry("in", n, *one) for n, one in enumerate(now[:new] + now[new + 1 :])][:done]
    indexes, changed, gone = align(before, now)
    assert changed == gone == []
    assert [indexes[now.index((entry.id, entry.hash))] for entry in before] == [entry.index for entry in before]
