"""`bioner-edge corpora`: list, check, show."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bioner_edge.cli.corpora import app
from bioner_edge.corpora import named
from bioner_edge.corpora.named import Counts, Split
from bioner_edge.errors import InputError, UsageError

PUBTATOR = "1|t|Aspirin and pain.\n1|a|\n1\t0\t7\tAspirin\tChemical\n1\t12\t16\tpain\tDisease\n\n"


def run(*arguments: str) -> Result:
    """One call, in this process; an error that the command line would print is raised."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one split of a corpus, which holds what it should, and another that does not."""
    (tmp_path / "bc5cdr").mkdir()
    for split in ("dev", "test"):
        (tmp_path / "bc5cdr" / f"{split}.PubTator.txt").write_text(PUBTATOR)
    splits = named.entries()["bc5cdr"].splits
    monkeypatch.setitem(splits, "dev", Split("dev", splits["dev"].path, Counts(1, 2, 0, {})))  # type: ignore[index]
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path))
    return tmp_path


def test_the_list_tells_what_is_here_without_reading_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, usual = [], io.open

    def noted(path: Any, *more: Any, **how: Any) -> Any:
        opened.append(str(path))
        return usual(path, *more, **how)

    monkeypatch.setattr(io, "open", noted)  # what pathlib calls
    monkeypatch.setattr(builtins, "open", noted)
    assert run("check", "bc5cdr:dev").exit_code == 0 and str(folder / "bc5cdr" / "dev.PubTator.txt") in opened
    opened.clear()
    lines = run("list").output.splitlines()
    dev, test = (next(line for line in lines if f" {split} " in line) for split in ("dev", "test"))
    assert "✓ dev" in dev and "✓ test" in test and "9,809" in test
    assert "✓" not in next(line for line in lines if "bc5cdr" in line), "train is not here"
    assert any("ncbi-disease" in line and "https://" in line for line in lines), "where to get it"
    assert not any("bc5cdr" in line and "https://" in line for line in lines)
    assert next(line for line in lines if "keepha-ja" in line).count("*") == 2, "counted, not published"
    assert not [path for path in opened if path.startswith(str(folder))]
    assert run().output == run("list").output


def test_the_list_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_CORPORA", str(tmp_path / "none"))
    result = run("list")
    assert result.exit_code == 0 and "set $BIONER_CORPORA" in result.stderr
    assert "✓ dev" not in result.stdout and "bc5cdr" in result.stdout


def test_the_list_as_json(folder: Path) -> None:
    rows = {row["corpus"]: row for row in map(json.loads, run("list", "--json").stdout.splitlines())}
    assert list(rows) == list(named.entries())
    splits = {split["name"]: split for split in rows["bc5cdr"]["splits"]}
    assert [splits[name]["found"] for name in ("train", "dev", "test")] == [False, True, True]
    assert splits["test"]["published"]["by_label"] == {"Chemical": 5385, "Disease": 4424}
    assert rows["biored"]["general"]["ChemicalEntity"] == "Chemical"


def test_check_tells_what_is_as_it_should_be(folder: Path) -> None:
    result = run("check", "bc5cdr:dev")
    assert (result.exit_code, result.stdout) == (0, "ok  bc5cdr:dev: 1 documents, 2 annotations, as published\n")
    assert result.stderr == ""


def test_check_fails_where_one_differs(folder: Path) -> None:
    result = run("check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["ok  bc5cdr:dev: 1 documents, 2 annotations, as published"]
    assert "warning: bc5cdr:test: 1 documents, 500 published" in result.stderr
    assert "warning: bc5cdr:test: 1 annotations of Chemical, 5,385 published" in result.stderr


def test_check_goes_on_where_a_split_cannot_be_read(folder: Path) -> None:
    (folder / "anatem" / "dev").mkdir(parents=True)
    (folder / "anatem" / "dev" / "LICENSE").write_text("CC")
    result = run("check", "anatem", "bc5cdr:dev")
    assert result.exit_code == 1 and "no documents in this folder" in result.stderr
    assert "ok  bc5cdr:dev" in result.stdout


def test_a_known_difference_is_a_warning_and_no_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = named.entries()["bc5cdr"].splits
    known = Split("dev", splits["dev"].path, Counts(1, 3, 0, {}), Counts(1, 2, 0, {}), "one was withdrawn")
    monkeypatch.setitem(splits, "dev", known)  # type: ignore[index]
    result = run("check", "bc5cdr:dev")
    assert result.exit_code == 0 and "as expected" in result.stdout
    assert "warning: bc5cdr:dev: 2 annotations, 3 published: one was withdrawn" in result.stderr


def test_what_is_named_and_not_there_is_told(folder: Path) -> None:
    result = run("check", "bc5cdr:dev", "bc5cdr:train")
    assert result.exit_code == 0 and "train.PubTator.txt is missing; it is available at https://" in result.stderr
    with pytest.raises(InputError, match="none of these corpora was found"):
        run("check", "biored")
    with pytest.raises(UsageError, match="unknown corpus 'bioreed'"):
        run("check", "bioreed")


def test_show_tells_all(folder: Path) -> None:
    text = " ".join(run("show", "ncbi-disease").stdout.split())
    for told in ("10.1016/j.jbi.2013.12.006", "Merged from SpecificDisease", "5,145", "US Government work"):
        assert told in text
    assert "Gene " in run("show", "biored").stdout, "the general name"
    shown = json.loads(run("show", "keepha-ja", "--json").stdout)
    assert list(shown["guidelines"]) == shown["labels"] and shown["splits"][0]["found"] is False
