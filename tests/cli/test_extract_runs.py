"""What a run of `extract` says and leaves behind, whatever a model would answer: a script reads in its place."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioner_edge import cli, guard
from bioner_edge.document import Document, Entity
from bioner_edge.errors import InputError
from bioner_edge.extraction import About, Extraction
from bioner_edge.guard import LostError

Run = Callable[..., tuple[int, str, list[str]]]


class Script:
    """A reader that finds "Naloxone", and does otherwise what a text, or `on` for an id, says; `read` are its ids."""

    def __init__(self) -> None:
        self.on: dict[str, str] = {}
        self.read: list[str] = []
        self.settings: dict[str, Any] = {"model": "m", "labels": ["Drug"]}

    def __call__(self, document: Document, /) -> Extraction:
        match self.on.get(document.id, document.text):
            case "fail":
                raise InputError(f"document {document.id}: fails")
            case "lose":
                raise LostError("the process that reads could not be started again: no memory")
            case "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
        self.read.append(document.id)
        at = document.text.find("Naloxone")
        return Extraction(document, () if at < 0 else (Entity.at("Drug", at, at + 8),))


class InProcess:
    """A guard without a process of its own."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.about = About(("Drug",), (), script.settings)

    def __call__(self, document: Document) -> Extraction:
        return self._script(document)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(guard, "Guard", lambda opening: InProcess(script))
    return script


@pytest.fixture
def run(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interruptible: None,
) -> Run:
    """A function (*arguments of extract, stdin=b"") -> (exit code, standard output, lines of standard error)."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, list[str]]:
        script.read.clear()
        monkeypatch.setattr(sys, "argv", ["bioner-edge", "extract", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exited:
            cli.main()
        out, err = capsys.readouterr()
        return int(str(exited.value.code)), out, [line.removeprefix("bioner-edge: ") for line in err.splitlines()]

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
        "n: 1 file is left out, of no known suffix: .pdf 1",
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
