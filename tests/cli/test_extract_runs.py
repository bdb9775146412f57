"""What a run of `extract` says and leaves behind, whatever a model would answer: a script reads in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioner_edge import guard
from bioner_edge.io import journal

Run = Callable[..., tuple[int, str, list[str]]]
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The reader of a run; see support/scripted.py."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    from scripted import Scripted  # type: ignore[import-not-found]

    reader = Scripted()
    monkeypatch.setattr(guard, "Guard", lambda opening: reader)
    return reader


@pytest.fixture
def run(cli: Run, scripted: Any, interruptible: None) -> Run:
    """`cli extract`, without the name in front of lines of standard error."""

    def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, list[str]]:
        scripted.read.clear()
        code, out, err = cli("extract", *arguments, stdin=stdin)
        return code, out, [line.removeprefix("bioner-edge: ") for line in err]

    return command


def put(**files: str | bytes) -> None:
    """Write files into the working folder; `__` in a name is a dot, `_of_` a folder's slash."""
    for name, content in files.items():
        path = Path(name.replace("_of_", "/").replace("__", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(*texts: str, ids: str = "abcdefgh") -> str:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in zip(ids, texts, strict=False))


def ids(name: str) -> list[str]:
    return [json.loads(line)["id"] for line in Path(name).read_text("utf-8").splitlines()]


def there(folder: str = ".") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_quiet_means_no_remarks(run: Run) -> None:
    put(n_of_a__txt='{"id": "7", "text": "x"}\n', n_of_b__pdf="", n_of_c__jsonl='{"text": "y", "entities": [5]}\n')
    refused = 'c.jsonl:1: entity 0: needs "start", "end" and "label"'
    told = [
        "n: 1 file is left out, of unknown suffix: .pdf 1",
        "a.txt: read as JSON Lines, which it holds; --from text reads it as it stands",
        refused,
    ]
    assert run("n")[::2] == (0, told) and run("n", "--quiet")[::2] == (0, [refused])


def test_a_pipe_without_annotations_is_written_whole(run: Run) -> None:
    """As it is where it is standard input: that no annotations were among it is known only at its end."""
    data = lines("Naloxone.", "x").replace('"id"', '"name"').encode()
    told = ["no document has annotations under a key that is read"]
    for name in ("-", "/dev/fd/{}"):
        ours, theirs = os.pipe()
        os.write(theirs, data)
        os.close(theirs)
        code, _, err = run(name.format(ours), "--keep-annotations", "--out", "o.jsonl", "--overwrite", stdin=data)
        os.close(ours)
        assert (code, len(err)) == (0, 1) and told[0] in err[0]
        assert Path("o.jsonl").read_text("utf-8").count("\n") == 2 and "o.jsonl.partial" not in there()


# A run that is taken up again


@pytest.mark.parametrize("name", ["n", "n/*", "n/**/*.txt"])
@pytest.mark.parametrize(
    "to", [("--to", "brat", "--out", "n/found"), ("--out", "n/found.jsonl")], ids=["brat", "jsonl"]
)
def test_an_output_among_the_inputs_is_taken_up_again(run: Run, scripted: Any, to: tuple[str, ...], name: str) -> None:
    """What a run has written itself is no input of it, whatever names it."""
    put(n_of_a__txt="Naloxone.", n_of_b__txt="x", n_of_c__txt="y")
    scripted.on = {"b.txt": "interrupt"}
    code, _, err = run(name, *to)
    assert (code, err) == (130, ["interrupted", "1 documents are kept; the same command with --resume goes on"])
    scripted.on = {}
    assert run(name, *to, "--resume")[::2] == (0, []) and scripted.read == ["b.txt", "c.txt"]
    finished = [f"{to[-1]} is finished: nothing was left to read"]
    assert run(name, *to, "--resume")[::2] == (0, finished) and scripted.read == []
    shell = [str(path) for path in sorted(Path("n").glob("[!.]*"))]  # where the user's shell writes them out
    assert run(*shell, *to, "--resume")[::2] == (0, finished)
    assert run(*to[-1:], *to, "--resume")[::2] == (2, [f"{to[-1]}: is among the inputs; choose another --out"])


def test_a_finished_run_is_known_again(run: Run, scripted: Any) -> None:
    """The same command with --resume is done at once, as often as it is given; new documents are read."""
    put(a__jsonl=lines("Naloxone.", "x"))
    to = ("--out", "o.jsonl", "--resume")
    assert run("a.jsonl", *to)[::2] == (0, []) and there() == {"a.jsonl", "o.jsonl", ".o.jsonl.finished"}
    before = {name: (Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in there()}
    for quiet in ((), ("--quiet",)):
        told = [] if quiet else ["o.jsonl is finished: nothing was left to read"]
        assert run("a.jsonl", *to, *quiet)[::2] == (0, told) and scripted.read == []
        assert {name: (Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in there()} == before
    put(a__jsonl=lines("Naloxone.", "x", "new"), A__txt="before them")
    assert run("A.txt", "a.jsonl", *to)[::2] == (0, []) and scripted.read == ["A.txt", "c"]
    assert ids("o.jsonl") == ["A.txt", "a", "b", "c"] and len(there()) == 4
    assert run("a.jsonl", "--out", "o.jsonl")[::2] == (2, ["o.jsonl: exists; give --overwrite to replace it"])
    Path("o.jsonl").unlink()  # by who wants it anew
    assert run("a.jsonl", *to)[::2] == (0, []) and scripted.read == ["a", "b", "c"]


@pytest.mark.parametrize("again", ["--resume", "--retry-failed"])
def test_foreign_work_is_never_called_finished(run: Run, scripted: Any, again: str) -> None:
    put(a__jsonl=lines("Naloxone."), b__jsonl=lines("other", "documents"), o__jsonl="mine\n")
    to = ("--out", "o.jsonl", again)
    told = ["o.jsonl: exists, and there is no run to resume; give --overwrite to replace it"]
    assert run("a.jsonl", *to)[::2] == (2, told) and Path("o.jsonl").read_text() == "mine\n"
    assert run("a.jsonl", "--out", "o.jsonl", "--overwrite")[0] == 0
    code, _, (told_,) = run("b.jsonl", *to)
    assert (
        code == 2 and "1 documents that were read before are missing now, the first is document 1 of a.jsonl" in told_
    )
    put(a__jsonl=lines("changed"))
    code, _, (told_,) = run("a.jsonl", *to)
    assert code == 2 and "a.jsonl: document 1, a, is not the one that was read before (a)" in told_
    put(a__jsonl=lines("Naloxone."))
    for data in (b"", b"other\n", Path("o.jsonl").read_bytes() + b"more\n"):
        Path("o.jsonl").write_bytes(data)
        code, _, (told_,) = run("a.jsonl", *to)
        assert code == 2 and "the output was changed since it was written; start over with --overwrite" in told_
        assert Path("o.jsonl").read_bytes() == data and scripted.read == []
    scripted.about.fingerprint["model"] = "another"
    code, _, (told_,) = run("a.jsonl", *to)
    assert code == 2 and ".o.jsonl.finished: the run was begun with other settings: model was m, now another" in told_


def test_a_folder_is_finished_where_its_files_are_there(run: Run, scripted: Any) -> None:
    put(a__jsonl=lines("Naloxone."), o_of_mine="kept")
    to = ("--to", "brat", "--out", "o", "--resume")
    none = "is not empty, and there is no run in it to resume; give --overwrite to replace the files in it that have"
    code, _, (told,) = run("a.jsonl", *to)
    assert code == 2 and told.startswith(f"o: {none}")
    assert run("a.jsonl", *to[:-1], "--overwrite")[0] == 0 and there("o") == {"a.txt", "a.ann", "mine", ".finished"}
    assert run("a.jsonl", *to)[::2] == (0, ["o is finished: nothing was left to read"]) and scripted.read == []
    assert run("a.jsonl", *to[:-1])[0] == 2
    for path in Path("o").glob("[!.]*"):
        path.unlink()
    assert run("a.jsonl", *to)[::2] == (0, []) and scripted.read == ["a"]  # by who wants it anew
    Path("o/a.ann").unlink()
    code, _, (told,) = run("a.jsonl", *to)
    assert (
        code == 2
        and told == "o: the files of document a are missing, but .finished lists them; start over with --overwrite"
    )


# What could not be read, once it is repaired


BROKEN = lines("Naloxone.") + '{"id": "b", "text": \n' + lines("x", "y", ids="cd")
WHOLE = lines("Naloxone.", "repaired", "x", "y")


@pytest.mark.parametrize("again", ["--resume", "--retry-failed"])
@pytest.mark.parametrize(
    "repaired",
    [WHOLE, BROKEN.replace('{"id": "b", "text": \n', ""), lines("Naloxone.", "two", "in one", "x", "y", ids="aBbcd")],
    ids=["repaired", "removed", "two"],
)
def test_a_repaired_line_gets_its_place(run: Run, scripted: Any, repaired: str, again: str) -> None:
    put(a__jsonl=BROKEN, whole__jsonl=repaired)
    told = "a.jsonl:2: not JSON: Expecting value at column 21"
    end = [told, f"failed: {told}", "1 failed; --retry-failed tries them again"]
    assert run("a.jsonl", "--out", "o.jsonl")[::2] == (1, end)
    assert run("a.jsonl", "--out", "o.jsonl", again)[::2] == (1, end) and scripted.read == []
    put(a__jsonl=repaired)
    new = [i for i in (json.loads(line)["id"] for line in repaired.splitlines()) if i in "bB"]
    assert run("a.jsonl", "--out", "o.jsonl", again)[0] == 0 and scripted.read == new
    assert run("whole.jsonl", "--out", "w.jsonl")[0] == 0
    assert Path("o.jsonl").read_bytes() == Path("w.jsonl").read_bytes()
    assert run("a.jsonl", "--out", "o.jsonl", again)[::2] == (0, ["o.jsonl is finished: nothing was left to read"])
    assert there() == {"a.jsonl", "whole.jsonl", "o.jsonl", "w.jsonl", ".o.jsonl.finished", ".w.jsonl.finished"}


def test_a_line_that_is_repaired_in_the_middle_of_a_run_gets_its_place(run: Run, scripted: Any) -> None:
    put(a__jsonl=BROKEN)
    scripted.on = {"d": "interrupt"}
    assert run("a.jsonl", "--out", "o.jsonl")[0] == 130 and scripted.read == ["a", "c"]
    put(a__jsonl=WHOLE)
    scripted.on = {"b": "interrupt"}
    assert run("a.jsonl", "--out", "o.jsonl", "--resume")[0] == 130 and scripted.read == []
    scripted.on = {}
    assert run("a.jsonl", "--out", "o.jsonl", "--resume")[0] == 0 and scripted.read == ["b", "d"]
    assert ids("o.jsonl") == list("abcd")


def test_a_repaired_stream_is_read_again_too(run: Run, scripted: Any) -> None:
    assert run("--out", "o.jsonl", stdin=BROKEN.encode())[0] == 1
    assert run("--out", "o.jsonl", "--retry-failed", stdin=WHOLE.encode())[0] == 0 and scripted.read == ["b"]
    assert ids("o.jsonl") == list("abcd")


def test_a_document_that_lacked_a_text_is_read_again(run: Run, scripted: Any) -> None:
    """Of PubTator a document goes on where one of its lines is lost: what was read of it gives place."""
    blocks = ["1|t|One\n1|a|Naloxone.\n", "2|t|Two\n2|a|Naloxone.\n", "3|t|Three\n3|a|x\n"]
    put(a__pubtator="".join(blocks).replace("2|t|", "2 t "), whole__pubtator="".join(blocks))
    for to in (("--out", "o.jsonl"), ("--out", "o.pubtator"), ("--out", "o", "--to", "brat")):
        whole = (to[0], to[1].replace("o", "w", 1), *to[2:])
        put(a__pubtator="".join(blocks).replace("2|t|", "2 t "))
        assert run("a.pubtator", *to)[0] == 1 and scripted.read == ["1", "2", "3"]
        put(a__pubtator="".join(blocks))
        assert run("a.pubtator", *to, "--retry-failed")[0] == 0 and scripted.read == ["2"]
        assert run("whole.pubtator", *whole)[0] == 0
        if "brat" in to:
            assert there("o") == there("w") == {f"{n}.{s}" for n in "123" for s in ("txt", "ann")} | {".finished"}
            assert all(Path("o", n).read_bytes() == Path("w", n).read_bytes() for n in there("o") - {".finished"})
        else:
            assert Path(to[1]).read_bytes() == Path(whole[1]).read_bytes()


def test_one_that_fails_once_it_is_repaired_leaves_nothing_behind(run: Run, scripted: Any) -> None:
    put(a__pubtator="1|t|One\n2 t Two\n2|a|Naloxone.\n")
    for to in (("--out", "o.jsonl"), ("--out", "o", "--to", "brat")):
        put(a__pubtator="1|t|One\n2 t Two\n2|a|Naloxone.\n")
        assert run("a.pubtator", *to)[0] == 1
        put(a__pubtator="1|t|One\n2|t|Two\n2|a|Naloxone.\n")
        scripted.on = {"2": "fail"}
        assert run("a.pubtator", *to, "--resume")[0] == 1 and scripted.read == []
        assert run("a.pubtator", *to, "--resume")[0] == 1
        scripted.on = {}
        assert (ids("o.jsonl") == ["1"]) if len(to) == 2 else there("o") == {"1.txt", "1.ann", ".progress"}
        assert run("a.pubtator", *to, "--retry-failed")[0] == 0 and scripted.read == ["2"]
        assert (ids("o.jsonl") == ["1", "2"]) if len(to) == 2 else "2.ann" in there("o")


def test_a_repair_explains_no_more_than_what_was_lost(run: Run, scripted: Any) -> None:
    put(a__jsonl=BROKEN)
    assert run("a.jsonl", "--out", "o.jsonl")[0] == 1
    before = Path("o.jsonl").read_bytes(), Path("o.jsonl.progress").read_bytes()
    put(a__jsonl=lines("other", "repaired", "documents", "y"))
    code, _, (told,) = run("a.jsonl", "--out", "o.jsonl", "--resume")
    assert code == 2 and "2 documents that were read before are missing now, the first is document 1 of a.jsonl" in told
    put(a__jsonl=BROKEN.replace('"y"', '"z"'))  # nothing was repaired
    assert run("a.jsonl", "--out", "o.jsonl", "--resume")[0] == 2 and scripted.read == []
    assert (Path("o.jsonl").read_bytes(), Path("o.jsonl.progress").read_bytes()) == before


def test_names_of_files_do_not_shift(run: Run, scripted: Any) -> None:
    """Ids that repeat are told apart by numbers: what a document was called it is called, whatever comes before it."""
    put(a__jsonl=lines("one", ids="x") + "{\n" + lines("three", "fail", "five", ids="xxx"))
    to = ("--to", "brat", "--out", "o")
    assert run("a.jsonl", *to)[0] == 1
    before = {name: Path("o", name).read_bytes() for name in there("o") if "txt" in name}
    assert before == {"x.txt": b"one", "x-2.txt": b"three", "x-4.txt": b"five"}
    put(a__jsonl=lines("one", "two", "three", "fail", "five", ids="xxxxx"))
    assert run("a.jsonl", *to, "--retry-failed")[0] == 1 and scripted.read == ["x"]
    after = {name: Path("o", name).read_bytes() for name in there("o") if "txt" in name}
    assert after == {**before, "x-5.txt": b"two"}
    for again in ("--resume", "--retry-failed"):
        assert run("a.jsonl", *to, again)[0] == 1 and scripted.read == []
    assert {name: Path("o", name).read_bytes() for name in there("o") if "txt" in name} == after


# What ends a run before its end


@pytest.mark.parametrize("to", [(), ("--out", "o.jsonl")], ids=["standard output", "file"])
def test_a_run_that_was_begun_is_not_nothing(run: Run, to: tuple[str, ...]) -> None:
    put(a__jsonl=lines("Naloxone.", "fail", "lose", "x"), b__jsonl=lines("lose"))
    told = "the process that reads could not be started again: no memory"
    ends = ["document b: fails", "failed: document b: fails", "1 failed; --retry-failed tries them again", told]
    kept = "1 documents are kept; the same command with --resume goes on"
    code, out, err = run("a.jsonl", *to)
    assert (code, err) == (1, [*ends, kept] if to else [ends[0], told]) and out.count("\n") == (0 if to else 1)
    assert run("b.jsonl", *(to and ("--out", "p.jsonl")))[::2] == (2, [told])
    assert "p.jsonl.progress" not in there()


def start(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "scripted.py"), *arguments], **{"stderr": subprocess.PIPE, **how}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("show", [(), ("--show",)])
def test_a_full_disk_behind_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Any) -> None:
    """Some documents are out when the disk is full: that is not nothing."""
    monkeypatch.chdir(tmp_path)
    put(a__jsonl=lines(*["Naloxone. " * 50] * 8))

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    for out, code, limit in (("out", 1, limited), ("/dev/full", 2, None)):
        with open(out, "wb") as stream:
            process = start("a.jsonl", *show, stdout=stream, preexec_fn=limit)
        (_, err) = process.communicate()
        reason = "File too large" if limit else "No space left on device"
        assert err.decode() == f"bioner-edge: standard output: cannot be written: {reason}\n"
        assert process.returncode == (1 if show else code)


@pytest.mark.parametrize("out", [(), ("--out", "o.jsonl")], ids=["shown alone", "with a file"])
def test_who_has_seen_enough_ends_no_run_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(a__jsonl=lines(*["Naloxone. " * 5] * 8))
    ours, theirs = os.pipe()
    os.close(ours)
    process = start("a.jsonl", "--show", *out, stdout=theirs)
    os.close(theirs)
    _, err = process.communicate()
    assert process.returncode == 0
    if out:
        assert ids("o.jsonl") == list("abcdefgh") and "o.jsonl.progress" not in there()
        told = "standard output was closed: nothing more is shown, and all is written to o.jsonl"
        assert err.decode() == f"bioner-edge: {told}\n"
    else:
        assert err == b""


def test_a_journal_that_cannot_be_written_is_not_left_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch, scripted: Any
) -> None:
    def full(stream: Any, data: bytes) -> None:
        stream.write(data[:9])
        raise OSError(28, "No space left on device", str(stream.name))

    put(a__jsonl=lines("Naloxone."))
    for to, name in ((("--out", "o.jsonl"), "o.jsonl.progress"), (("--out", "o", "--to", "brat"), "o/.progress")):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "write", full)
            told = [f"{name}: cannot be written: No space left on device"]
            assert run("a.jsonl", *to)[::2] == (2, told) and there() - {"a.jsonl"} == set(scripted.read)
        Path("o.jsonl.progress").touch()  # as an earlier version left it
        assert run("a.jsonl", *to)[0] == 0
        Path("o.jsonl.progress").unlink(missing_ok=True)
        Path("o.jsonl").unlink(missing_ok=True)
        Path(".o.jsonl.finished").unlink(missing_ok=True)


def test_a_damaged_journal_says_what_to_do(run: Run, scripted: Any) -> None:
    put(a__jsonl=lines("Naloxone.", "x", "y"))
    scripted.on = {"c": "interrupt"}
    assert run("a.jsonl", "--out", "o.jsonl")[0] == 130
    scripted.on = {}
    path = Path("o.jsonl.progress")
    whole = path.read_bytes().splitlines(keepends=True)
    for damage in (b"\xff\x00\n", b"[]\n", b'{"kind": "complete", "order": [7]}\n'):
        path.write_bytes(b"".join([*whole[:2], damage, *whole[3:]]))
        code, _, (told,) = run("a.jsonl", "--out", "o.jsonl", "--resume")
        assert code == 2 and told.startswith("o.jsonl.progress:3: not a line of ")
        assert told.endswith("; cut the file before this line and --resume from there, or start over with --overwrite")
    path.write_bytes(b"".join(whole[:2]))
    assert run("a.jsonl", "--out", "o.jsonl", "--resume")[0] == 0 and scripted.read == ["b", "c"]
    assert ids("o.jsonl") == ["a", "b", "c"]


def test_many_failures_are_counted_and_the_first_are_named(run: Run, tmp_path: Path) -> None:
    put(a__jsonl="".join(json.dumps({"id": n, "text": "fail"}) + "\n" for n in range(30)) + lines("x"))
    code, _, err = run("a.jsonl", "--out", "o.jsonl")
    assert code == 1 and [told for told in err if told.startswith("failed: ")] == [
        f"failed: document {n}: fails" for n in range(20)
    ]
    assert err[-1] == "30 failed (10 more are in o.jsonl.progress); --retry-failed tries them again"
    assert Path("o.jsonl.progress").read_text("utf-8").count('"failed": ') == 30
