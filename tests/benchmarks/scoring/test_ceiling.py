"""Ceilings worked by hand, what every format must satisfy, and what the command says of a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bioner_edge import formats
from bioner_edge.benchmarks.scoring import ceiling
from bioner_edge.benchmarks.scoring.ceiling import gold, measure
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import InputError
from bioner_edge.formats import FORMATS, multi_tag
from bioner_edge.formats.contract import Parsed, Problem
from bioner_edge.models import registry

ONCE = "Aspirin helped; aspirin alone did not. Aspirin again."  # "Aspirin" twice, at 0 and 39
SPLIT = "She had liver and kidney failure."
INSIDE = "Preheparin was given."
NESTED = "Renal cancer cells grew."
DOCUMENTS = [
    Document("once", ONCE, (Entity.at("Drug", 0, 7), Entity.at("Drug", 0, 7))),
    Document("split", SPLIT, (Entity("Disease", (Span(8, 13), Span(25, 32))), Entity.at("Disease", 18, 32))),
    Document("inside", INSIDE, (Entity.at("Drug", 3, 10),)),
    Document("nested", NESTED, (Entity.at("Disease", 0, 12), Entity.at("Drug", 0, 18))),
    Document("empty", "Nothing here."),
]
LABELS = ["Drug", "Disease"]
DISCONTINUOUS, INSIDE_TOKEN = "discontinuous", "inside a token"
# tp, fp and fn of six different entities. Term formats read the second "Aspirin" too.
BY_HAND: dict[str, tuple[tuple[int, int, int], set[str]]] = {
    "conv_term": ((4, 1, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "single_term": ((4, 1, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "multi_code": ((4, 1, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "multi_triple": ((4, 1, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "multi_tag": ((4, 0, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "multi_span": ((4, 0, 2), {DISCONTINUOUS, INSIDE_TOKEN}),
    "multi_brat": ((5, 0, 1), {INSIDE_TOKEN}),
}
Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(cli: Run) -> Run:
    """`cli formats check`, in a folder with corpora."""
    lines = [json.dumps(d.to_json()) + "\n" for d in DOCUMENTS]
    Path("c.jsonl").write_text("".join(lines), "utf-8")
    Path("bare.txt").write_text(ONCE, "utf-8")
    return partial(cli, "formats", "check")


def rows(out: str) -> dict[str, dict[str, Any]]:
    return {row["format"]: row for row in map(json.loads, out.splitlines())}


@pytest.mark.parametrize("name", BY_HAND)
def test_ceilings_by_hand(name: str) -> None:
    (tp, fp, fn), reasons = BY_HAND[name]
    documents, labels = gold(DOCUMENTS, None)
    row = measure(name, documents, labels, defective=pytest.fail)
    assert (row.counts.tp, row.counts.fp, row.counts.fn) == (tp, fp, fn)
    assert (set(row.inexpressible), row.beside, row.inexpressible.total()) == (reasons, fp, fn)


def test_a_surface_annotated_once_that_occurs_twice() -> None:
    documents, labels = gold(DOCUMENTS[:1], None)
    scores = measure("conv_term", documents, labels, defective=pytest.fail).counts
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 1.0, pytest.approx(2 / 3))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_loses_what_it_says_and_no_more(name: str) -> None:
    documents, labels = gold(DOCUMENTS, None)
    done = []
    row = measure(name, documents, labels, count=len, defective=pytest.fail, advance=lambda: done.append(1))
    assert row.documents == len(done) == len(DOCUMENTS)
    assert row.counts.tp + row.counts.fn == 6 and row.counts.fn == row.inexpressible.total()
    assert row.tokens == row.characters > 0 and not row.defects
    assert measure(name, documents, labels, defective=pytest.fail).tokens is None


def test_characters_are_those_of_all_answers() -> None:
    documents, labels = gold(DOCUMENTS[:1], LABELS)
    row = measure("conv_term", documents, labels, defective=pytest.fail)
    assert row.characters == len('["Aspirin"]') + len("[]")


# The gold


def test_labels_are_those_of_the_corpus_by_first_appearance() -> None:
    assert gold(DOCUMENTS, None)[1] == ["Drug", "Disease"]
    assert gold(DOCUMENTS[1:], None)[1] == ["Disease", "Drug"]


def test_the_gold_is_distinct_and_of_the_labels_asked() -> None:
    documents, labels = gold(DOCUMENTS, ["Drug", "Gene"])
    assert labels == ["Drug", "Gene"]
    assert [[e.label for e in d.entities] for d in documents] == [["Drug"], [], ["Drug"], ["Drug"], []]


@pytest.mark.parametrize(
    ("documents", "labels", "message"),
    [
        ([], None, "no documents in the corpus; nothing was measured"),
        (DOCUMENTS[4:], None, "no annotated entity in the corpus; a ceiling is measured on gold annotations"),
        (DOCUMENTS, ["Gene", "drug"], "no entity in the corpus is a Gene or drug; its labels: Drug, Disease"),
    ],
)
def test_nothing_to_measure(documents: list[Document], labels: list[str] | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        gold(documents, labels)
    assert str(caught.value) == message


# The command


def test_the_table(run: Run) -> None:
    code, out, err = run("c.jsonl")
    assert (code, err) == (0, []) and "\x1b" not in out
    assert "5 documents, 6 entities; labels: Drug, Disease" in out
    assert [line.split()[0] for line in out.splitlines() if line[1:].split(" ")[0] in FORMATS] == list(FORMATS)
    assert max(map(len, out.splitlines())) <= 100
    (term,) = [line.split() for line in out.splitlines() if line.startswith(" conv_term ")]
    assert term[1:5] == ["5", "0.8000", "0.6667", "0.7273"]


def test_json_lines(run: Run) -> None:
    code, out, err = run("c.jsonl", "--json")
    assert (code, err) == (0, [])
    found = rows(out)
    assert list(found) == list(FORMATS)
    per_document = found["conv_term"].pop("tokens_per_document")
    assert per_document > 0
    assert found["conv_term"] == {
        "format": "conv_term",
        "documents": 5,
        "entities": 6,
        "precision": 0.8,
        "recall": 0.666667,
        "f1": 0.727273,
        "inexpressible": {DISCONTINUOUS: 1, INSIDE_TOKEN: 1},
        "beside": 1,
        "characters_per_document": 15.8,  # of 79 characters
        "defects": 0,
    }


def test_some_formats_and_labels(run: Run) -> None:
    code, out, err = run("c.jsonl", "--formats", "multi_tag, conv_term", "--labels", "Disease,Gene", "--json")
    assert code == 0 and list(rows(out)) == ["multi_tag", "conv_term"]
    assert rows(out)["multi_tag"]["entities"] == 3
    assert err == ["bioner-edge: warning: no entity in the corpus is a Gene"]
    assert run("c.jsonl", "--formats", "multi_tag", "--labels", "Disease,Gene", "--quiet")[2] == []


def test_without_a_model_tokens_are_not_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", lambda: None)
    assert rows(run("c.jsonl", "--formats", "multi_tag", "--json")[1])["multi_tag"]["tokens_per_document"] is None
    out = run("c.jsonl", "--formats", "multi_tag")[1]
    assert next(line for line in out.splitlines() if line.startswith(" multi_tag ")).endswith(" –")


def test_notices_are_told_and_counted(run: Run) -> None:
    entities = [{"start": 0, "end": 7, "label": "Drug"}, {"start": 0, "end": 99, "label": "Drug"}]
    record = json.dumps({"id": "d", "text": ONCE, "entities": entities})
    Path("d.jsonl").write_text(f"{record}\n", "utf-8")
    code, _, err = run("d.jsonl", "--formats", "multi_tag")
    assert code == 0 and len(err) == 2 and "d.jsonl:1: " in err[0]
    assert err[1] == "bioner-edge: 1 notices about the corpus, 0 of them of text that is not in the figures"
    Path("d.jsonl").write_text(f"{record}\n{{\n", "utf-8")
    code, _, err = run("d.jsonl", "--formats", "multi_tag", "--quiet")
    assert code == 1 and [line.split(": ")[1] for line in err] == ["d.jsonl:1", "d.jsonl:2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.jsonl"], "no.jsonl: no such file or folder, and no file matches it as a pattern"),
        (["bare.txt"], "no annotated entity in the corpus; a ceiling is measured on gold annotations"),
        (["no.jsonl", "--from", "xml"], "unknown input format 'xml'; known: "),
        (["c.jsonl", "--formats", "multi_tga"], "unknown format 'multi_tga'; known: "),
        (["c.jsonl", "--formats", "multi_tag,"], "--formats 'multi_tag,': must be distinct names, separated by commas"),
        (["c.jsonl", "--labels", "Drug,<"], "multi_tag: label '<' cannot be a tag: "),
        ([], "Missing argument 'CORPUS"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], message: str) -> None:
    chosen = [] if not arguments or "--formats" in arguments else ["--formats", "multi_tag"]
    code, out, (line,) = run(*arguments, *chosen)
    assert (code, out) == (2, "")
    assert line.startswith(f"bioner-edge: {message}")


# Defects


def test_a_format_that_cannot_read_its_own_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(answer: str, document: Document, labels: list[str]) -> Parsed:
        parsed = multi_tag.parse(answer, document, labels)
        assert not document.entities  # the gold is not given away
        problem = Problem.at("syntax", answer, 3, "expected a comma")
        return replace(parsed, problems=(problem,)) if document.id == "nested" else parsed

    monkeypatch.setitem(formats.FORMATS, "broken", SimpleNamespace(**{**vars(multi_tag), "parse": parse}))
    code, out, err = run("c.jsonl", "--formats", "multi_tag,broken", "--json")
    told = "its own answer has a problem: syntax at line 1, column 4: expected a comma"
    assert (code, err) == (1, [f"bioner-edge: DEFECT in broken: document nested: {told}"])
    assert [row["defects"] for row in rows(out).values()] == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inexpressible": lambda d, labels: []},
            "document split: Disease at [8, 13), [25, 32) is lost without a reason",
        ),
        (
            {"inexpressible": lambda d, labels: [(e, "too long") for e in d.entities]},
            "document once: Drug at [0, 7) is not lost, as it says",
        ),
    ],
)
def test_a_format_that_loses_what_it_does_not_say(change: dict[str, Any], message: str) -> None:
    documents, labels = gold(DOCUMENTS, None)
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        broken = SimpleNamespace(**{**vars(multi_tag), **change})
        patch.setitem(formats.FORMATS, "broken", broken)
        row = measure("broken", documents, labels, defective=told.append)
    assert told[0] == f"DEFECT in broken: {message}" and row.defects == len(told)


def test_progress_needs_a_terminal(run: Run) -> None:
    assert run("c.jsonl", "--formats", "multi_tag")[2] == []
    assert ceiling.Checked([], [], 0, 0).exit_code == 0
