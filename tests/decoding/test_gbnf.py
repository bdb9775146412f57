"""Our reading of GBNF against llama.cpp's engine and against llguidance's."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable
from typing import Any

import pytest
from automata import accepts_all
from hypothesis import given, settings
from hypothesis import strategies as st

from bioner_edge.decoding import gbnf
from bioner_edge.decoding.gbnf import GrammarAutomaton, GrammarError
from bioner_edge.document import Document, Entity
from bioner_edge.formats import FORMATS

Load = Callable[[str], Any]

LABELS = ["Chemical", "Anatomical site", "Médicament", 'a"b', "症状"]
TEXT = 'lung < 5 <b> \\ <<x é患者🙂\r\n"aspirin"</Chemical> <'
ENTITIES = tuple(Entity.at(LABELS[n], *place) for n, place in enumerate([(0, 4), (0, 8), (17, 18), (19, 23), (24, 26)]))
DOCUMENT = Document("d", TEXT, tuple(e for e in ENTITIES))

GRAMMARS = {
    "literals": 'root ::= "ab" "c"',
    "a literal repeats whole": 'root ::= "ab"* "c"',
    "counted": 'root ::= "ab"{2} [c-e]{1,3} "f"{2,} ("g" "h"){0,2}',
    "blanks in a count": 'root ::= "a" { 1 , 3 } "b"{0,0}',
    "nothing": "root ::= ",
    "empty alternatives": 'root ::= ("a" | ) "b" (|"c")',
    "optional, star, plus": 'root ::= "a"? [bc]* "d"+',
    "any character": 'root ::= . "x" .?',
    "classes": r'root ::= [^a-c"\]\\] [a\-\x41-\x43] [é-ü患🙂-🙄] [a-]',
    "negated, nested": 'root ::= ([^<] | "<" [^/a])* "</"',
    "escapes": r'root ::= "\n\r\t\\\"\[\]\x41\u00e9\U0001F642"',
    "comments": '# first\nroot ::= # here\n  "a" # there\r\n\n# between\n\n',
    "lines in groups": 'root ::= ("a"\n  | "b"\n) |\n  c-1\nc-1 ::= "c"',
    "a rule is written twice": 'root ::= a\na ::= "x"\na ::= "y"',
    "right recursion": 'root ::= "a" root | "b"',
    "nesting": 'root ::= "(" root ")" | "[" root* "]" | "x"',
    "a stack that is left at once": 'root ::= "(" root end | "x"\nend ::= ")"?',
    "ambiguous": 'root ::= "a"* "a"* ("a" | "aa")',
    "mixed": 'root ::= item ("," ws item)*\nitem ::= [0-9]+ | "\\"" [^"\\\\]* "\\""\nws ::= " "?',
}


def sampled(automaton: GrammarAutomaton, rng: random.Random, size: int) -> bytes:
    state, written = automaton.start, bytearray()
    while len(written) < size and (options := sorted(automaton.options(state))):
        if automaton.accepts(state) and rng.random() < 0.1:
            return bytes(written)
        written.append(rng.choice(options))
        state = automaton.step(state, written[-1])
    return bytes(written + automaton.closing(state))


def agree(automaton: GrammarAutomaton, engine: Any, data: bytes) -> None:
    """Both allow the same next bytes after every prefix of `data` that both allow."""
    engine.lib.llama_sampler_reset(engine.sampler)
    state: Any = automaton.start
    decoder = codecs.getincrementaldecoder("utf-8")()
    for byte in (*data, None):
        before = decoder.getstate()
        told = {b for b in engine.options() if valid(before, b)}
        assert told == set(automaton.options(state)) - {0}
        assert automaton.accepts(state) == (engine.accepts() and not before[0])
        if byte is None or byte not in told:
            return
        decoder.decode(bytes((byte,)))
        state = automaton.step(state, byte)
        assert engine.step(byte)


def valid(before: tuple[bytes, int], byte: int) -> bool:
    if before[0] == b"\xed" and byte >= 0xA0:  # a surrogate, which Python refuses one byte later
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(before[0] + bytes((byte,)))
    except UnicodeDecodeError:
        return False
    return byte != 0


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_hand_written_grammars(oracle: Load, grammar: str) -> None:
    automaton, engine, rng = GrammarAutomaton(grammar), oracle(grammar), random.Random(1)
    assert engine is not None
    for _ in range(12):
        data = sampled(automaton, rng, 12)
        assert accepts_all(automaton, data)
        if 0 not in data:
            assert engine.accepts_all(data)
            agree(automaton, engine, data)
        cut = rng.randrange(len(data) + 1)
        agree(automaton, engine, data[:cut] + bytes(rng.choices(data + b'a\\<"\xc3\xa9', k=4)))


@settings(max_examples=settings.default.max_examples * 3 // 5)
@given(data=st.data())
def test_random_grammars_and_strings(oracle: Load, data: st.DataObject) -> None:
    symbol = st.sampled_from(['"a"', '"ab"', "[b-c]", "[^a]", '("a" | "b" other)', "other", '""', "."])
    symbols = st.tuples(symbol, st.sampled_from(["", "", "?", "{0,2}", "{2}"])).map(
        lambda pair: pair[0] if pair[0] == '""' else "".join(pair)
    )
    sequence = st.lists(symbols, min_size=1, max_size=3).map(" ".join)
    alternatives = st.lists(sequence, min_size=1, max_size=2).map(" | ".join)
    grammar = f'root ::= {data.draw(alternatives)}\nother ::= "c" ({data.draw(alternatives)})? | "d"'
    automaton, engine = GrammarAutomaton(grammar), oracle(grammar)
    text = data.draw(st.text("abcdé", max_size=8)).encode()
    assert accepts_all(automaton, text) == engine.accepts_all(text)
    agree(automaton, engine, text)


@pytest.mark.thorough(but=("3-*",))
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("rounds", [3, 12])
def test_the_formats_load_and_agree(oracle: Load, rounds: int, form: Any) -> None:
    rng = random.Random(2)
    for labels in form.questions(LABELS):
        grammar = form.gbnf(labels)
        automaton, engine = GrammarAutomaton(grammar), oracle(grammar)
        assert engine is not None
        answer = form.render(DOCUMENT, labels).encode()
        assert engine.accepts_all(answer) and accepts_all(automaton, answer)
        agree(automaton, engine, answer)
        for _ in range(7 * rounds):
            at, until = sorted(rng.choices(range(len(answer) + 1), k=2))
            missed = answer[:at] + answer[min(until, at + 3) :]
            if _is_text(missed):
                assert engine.accepts_all(missed) == accepts_all(automaton, missed)
        for _ in range(rounds):
            agree(automaton, engine, sampled(automaton, rng, 40).replace(b"\0", b""))


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_fifty_labels_load(oracle: Load, form: Any) -> None:
    for labels in form.questions([f"Type {n}" for n in range(50)]):
        assert oracle(form.gbnf(labels)) is not None


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_llguidance_agrees(form: Any) -> None:
    """On whole answers, nearly right ones among them, and on the bytes that may come next in each state of a render."""
    llguidance = pytest.importorskip("llguidance")
    from llguidance.gbnf_to_lark import gbnf_to_lark

    labels = form.questions(LABELS[:2])[0]
    grammar = form.gbnf(labels)
    automaton = GrammarAutomaton(grammar)
    lark = gbnf_to_lark(grammar).replace(r"\U10FFFF", r"\U0010FFFF")  # its converter drops the zeros
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(lark))
    assert not matcher.is_error(), matcher.get_error()

    def accepts(data: bytes) -> bool:
        matcher.reset()
        if matcher.validate_tokens(list(data)) < len(data):
            return False
        matcher.consume_tokens(list(data))
        return bool(matcher.is_accepting())

    answer, rng, verdicts = form.render(DOCUMENT, labels), random.Random(3), set()
    assert accepts(answer.encode())
    for _ in range(150):
        at, until = sorted(rng.choices(range(len(answer) + 1), k=2))
        put = rng.choice(["", "<", "\\", "</", "<Chemical>", '"', ", ", "[", "\t", "\n", "0", "@@"])
        missed = (answer[:at] + put + answer[min(until, at + 2) :]).encode()
        verdicts.add(verdict := accepts_all(automaton, missed))
        assert accepts(missed) == verdict, missed
    assert False in verdicts
    matcher.reset()
    state: Any = automaton.start
    for byte in answer.encode():
        bias = matcher.compute_logit_bias()
        assert {b for b in range(256) if bias[b]} == set(automaton.options(state))
        matcher.consume_tokens([byte])
        state = automaton.step(state, byte)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("grammar", "line", "column", "message"),
    [
        ("root = x", 1, 6, "'::='"),
        ("root ::= 'a'", 1, 10, "a symbol, '|' or the end of the line"),
        ('root ::= "a"\n| "b"', 2, 1, "the name of a rule"),
        ('root ::= "a" ; b', 1, 14, "a symbol"),
        ('root ::= "a', 1, 12, 'a closing "'),
        ("root ::= [a", 1, 12, "a closing ]"),
        ('root ::= ("a"', 1, 14, "')'"),
        (r'root ::= "\q"', 1, 13, "an escape"),
        (r'root ::= "\x4"', 1, 13, "an escape"),
        (r'root ::= "\UFFFFFFFF"', 1, 13, "a code point of Unicode"),
        (r'root ::= "\uD800"', 1, 17, "a character that text can hold"),
        (r"root ::= [\uD800-\uDFFF]", 1, 25, "a character that text can hold"),
        ("root ::= []", 1, 12, "a character in the class"),
        ("root ::= [z-a]", 1, 14, "a range that goes up, not from U+007A to U+0061"),
        ("root ::= *", 1, 10, "a symbol"),
        ('root ::= ""+', 1, 12, "something to repeat"),
        ('root ::= "a"{2001}', 1, 13, "at most 2000 repetitions"),
        ('root ::= "a"{3,2}', 1, 13, "at least 3 repetitions"),
        ('root ::= "a"{,2}', 1, 13, "a symbol"),
        ('root ::= "a"**', 1, 14, "a symbol"),
    ],
)
def test_what_cannot_be_read(grammar: str, line: int, column: int, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        GrammarAutomaton(grammar)
    assert str(caught.value).startswith(f"grammar: line {line}, column {column}: expected {message}")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "grammar: no rule named root"),
        ('a ::= "b"', "grammar: no rule named root"),
        ("root ::= a-1", "grammar: rule 'root' refers to 'a-1', which is not defined"),
        ('root ::= root "a" | "b"', "grammar: rule 'root' is left-recursive"),
        ('root ::= "a"? root | "b"', "grammar: rule 'root' is left-recursive"),
        ('root ::= a\na ::= b "x"\nb ::= a | "y"', "grammar: rule 'a' is left-recursive"),
        ('root ::= ("a" | )+', "grammar: rule 'root' is left-recursive"),
        ('root ::= "a" root', "grammar: rule 'root' never ends"),
    ],
)
def test_what_makes_no_grammar(grammar: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        GrammarAutomaton(grammar)
    assert str(caught.value) == message


@given(st.binary(max_size=6))
def test_only_utf8_is_written(data: bytes) -> None:
    assert accepts_all(GrammarAutomaton("root ::= .*"), data) == _is_text(data)


@pytest.mark.thorough(but=("1100",))  # beyond Python's limit of 1000; it takes quadratic time
@pytest.mark.parametrize("deep", [1100, 3000])
def test_nesting_and_repetition_have_no_depth(deep: int) -> None:
    assert accepts_all(GrammarAutomaton('root ::= "(" root end | "x"\nend ::= ")"?'), b"(" * deep + b"x")
    automaton = GrammarAutomaton('root ::= "a"{0,1000} "b"')
    assert accepts_all(automaton, 1000 * b"a" + b"b") and not accepts_all(automaton, 1001 * b"a" + b"b")
    assert automaton.closing(automaton.start) == b"b"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar comes to ever new states, and one automaton serves all documents."""
    monkeypatch.setattr(gbnf, "_KEPT", 8)
    automaton = GrammarAutomaton('root ::= "(" root ")" | "x"')
    state: Any = automaton.start
    for _ in range(50):
        assert automaton.options(state) == {ord("("), ord("x")}
        state = automaton.step(state, ord("("))
    assert len(automaton._options) <= 8 and len(automaton._steps) <= 8
