"""The format that CONTRIBUTING.md shows is whole: put into a module, it keeps the contract."""

from __future__ import annotations

import importlib.util
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from automata import accepts_all

from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.document import Document, Entity

LABELS = ["Chemical", "Anatomical site"]
TEXT = 'Naloxone, in "the liver", not naloxone.'
DOCUMENT = Document("d", TEXT, (Entity.at("Chemical", 0, 8), Entity.at("Anatomical site", 18, 23)))


def shown() -> ModuleType:
    source = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")
    match = re.search(r"```python\n(.*?)```", source, re.DOTALL)
    assert match
    module = importlib.util.module_from_spec(ModuleSpec("bioner_edge.formats.multi_pair", None))
    exec(compile(match[1], "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


def test_it_keeps_the_contract() -> None:
    form = shown()
    assert form.questions(LABELS) == [LABELS] and form.CANNOT
    answer = form.render(DOCUMENT, LABELS)
    assert answer == '[["Naloxone", "Chemical"], ["liver", "Anatomical site"]]'
    parsed = form.parse(answer, DOCUMENT, LABELS)
    assert {e.key for e in parsed.entities} == {e.key for e in DOCUMENT.entities} and not parsed.problems
    assert form.salvage(answer, DOCUMENT, LABELS) == parsed
    assert not form.inexpressible(DOCUMENT, LABELS)
    for automaton in (form.constraint(DOCUMENT, LABELS), GrammarAutomaton(form.gbnf(LABELS))):
        assert accepts_all(automaton, answer.encode())
        assert not accepts_all(automaton, answer.replace("Anatomical", "Gene").encode())
    broken = "So: " + answer
    assert form.parse(broken, DOCUMENT, LABELS).problems
    assert {e.key for e in form.salvage(broken, DOCUMENT, LABELS).entities} == {e.key for e in DOCUMENT.entities}
