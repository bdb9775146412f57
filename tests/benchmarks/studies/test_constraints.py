"""The script measures what it says; how long anything takes is nobody's to assert."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioner_edge import formats
from bioner_edge.benchmarks.studies import constraints
from bioner_edge.benchmarks.studies.constraints import main
from bioner_edge.benchmarks.studies.mask_growth import growth, joined
from bioner_edge.benchmarks.studies.mask_timing import Player, Steps, TimedMask, rows
from bioner_edge.document import Document, Entity
from bioner_edge.errors import BionerError, ModelError

LABELS = ["Chemical", "Disease"]
TEXT = "Renal failure followed 200 mg of amphotericin B."
DOCUMENT = Document("a", TEXT, (Entity.at("Disease", 0, 13), Entity.at("Chemical", 33, 47)))


@pytest.fixture(scope="module")
def player(tiny_model: Path) -> Iterator[Player]:
    with Player(tiny_model) as loaded:
        yield loaded


def test_the_rows_of_a_format(player: Player) -> None:
    pytest.importorskip("llguidance")
    answer = formats.get("multi_tag").render(DOCUMENT, LABELS).encode()
    found = {row.constraint: row.record() for row in rows(player, "multi_tag", LABELS, [DOCUMENT, DOCUMENT])}
    assert len(found) == 5 and not any("failed" in record for record in found.values())
    tokens = len(player.tokenize(answer, False))
    for constraint, record in found.items():
        assert record["tokens"]["count"] == 2 * tokens, constraint
        assert 0 <= record["build_median_ms"] <= record["build_max_ms"]
        ours = constraint in ("grounded", "gbnf")
        assert (record["choices"]["count"] > 0) == ours == ("loop_median_ms" in record)
    assert 0 < found["grounded"]["choices"]["count"] < 2 * tokens  # the rest is forced
    allowed = {name: record["tokens"].get("median_ids") for name, record in found.items()}
    assert allowed["grounded"] < 20 < allowed["gbnf"]
    # llama.cpp lets through the end, names of control tokens and bytes that are never UTF-8, but no NUL.
    assert 0 <= allowed["llama.cpp, whole vocabulary"] - allowed["gbnf"] < 20


def test_what_fails_is_a_row(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.get("multi_tag"), "gbnf", lambda labels: 'root ::= "a"')
    found = {row.constraint: row.record() for row in rows(player, "multi_tag", LABELS, [DOCUMENT])}
    assert "failed" not in found.pop("grounded")
    assert all(record["failed"] for record in found.values()) and len(found) == 4


def test_the_player_writes_what_it_is_told(player: Player) -> None:
    form = formats.get("multi_tag")
    for document in (DOCUMENT, DOCUMENT.without_entities(), Document("b", "é患者 🙂 < <b")):
        steps = Steps()
        lift = TimedMask(form.constraint(document, LABELS), player.vocabulary, steps)
        assert player.write(form.render(document, LABELS).encode(), lift) > 0
        assert len(steps.ns) == len(steps.ids) == steps.figures()["count"]
    with pytest.raises(BionerError, match=r"^the loop wrote b'"):
        player.write(b"Liver", TimedMask(form.constraint(DOCUMENT, LABELS), player.vocabulary, steps))


def test_joined_documents_keep_their_mentions() -> None:
    for size in (10, 60, 333):
        document = joined([DOCUMENT, Document("b", "No asthma.", (Entity.at("Disease", 3, 9),))], size)
        assert len(document.text) == size
        assert {e.mention(document.text) for e in document.entities} <= {"Renal failure", "amphotericin B", "asthma"}
    assert len(document.entities) == 16


def test_growth(player: Player) -> None:
    document = joined([DOCUMENT], 200)
    found = growth(player, "multi_tag", LABELS, document)
    assert found["characters"] == 200 and found["tokens"]["count"] > 30 and "failed" not in found
    assert found["peak_bytes_per_byte"] > 1


def test_growth_stops(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.get("multi_tag"), "constraint", lambda document, labels: time.sleep(30))
    found = growth(player, "multi_tag", LABELS, DOCUMENT, limit_s=0.2)
    assert found == {"format": "multi_tag", "characters": len(TEXT), "failed": "> 0.2 s"}


@pytest.mark.parametrize("as_json", [False, True])
def test_the_script(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text(json.dumps(DOCUMENT.to_json()) + "\n", "utf-8")
    arguments = ["--vocab", str(tiny_model), "--corpus", str(corpus), "--formats", "multi_tag", "--sizes", "60,120"]
    assert main([*arguments, *(["--json"] if as_json else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        records = [json.loads(line) for line in lines]
        assert len(records) == 1 + 5 + 2 and "a.jsonl: 1 documents of 48" in records[0]["machine"][3]
    else:
        tables = [line for line in lines if line.startswith("|")]
        assert len(tables) == 2 + 5 + 2 + 2 and lines[2] == "- tiny-F32.gguf: 400 tokens"
        assert len({line.count("|") for line in tables[:7]}) == len({line.count("|") for line in tables[7:]}) == 1


def test_a_table_says_what_failed() -> None:
    line = constraints._line({"format": "x", "constraint": "y", "failed": "no"}, constraints._STEPS)
    assert line.startswith("| x | y | no |  |")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats", "tags"], "unknown format 'tags'; known: "),
        (["--corpus", "no.jsonl"], "no.jsonl: "),
        (["--corpus", "empty.jsonl"], "empty.jsonl: no document has an entity; "),
    ],
)
def test_what_cannot_be_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text('{"id": "1", "text": "Nothing.", "entities": []}\n', "utf-8")
    assert main(["--vocab", "no.gguf", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"constraints: {message}")


def test_a_vocabulary_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read its vocabulary"):
        Player(tmp_path / "no.gguf")
