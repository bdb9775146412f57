"""On documents of at most four tokens: what a constraint accepts is what the rules of FORMATS allow, all of it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product

import pytest

from bioner_edge.decoding.automaton import ByteAutomaton
from bioner_edge.document import Document
from bioner_edge.formats import FORMATS

Answers = set[str]
Words = list[tuple[int, int]]
TEXTS = ["", " ", "a", "ab", "a a", "a b", "a ab a", "aa a", " b-b", "é \n患者", 'x"y', "a a a"]
CASES = [(text, ["T"]) for text in [*TEXTS, "a b a c", "a\\a b", "<b @#", "a a a a"]] + [
    (text, ["T", "U v"]) for text in TEXTS
]


def words(text: str) -> Words:
    """The tokens, by their definition: runs of letters and digits; else, or in Han, one character each."""
    return [m.span() for m in re.finditer(r"[患者]|[^\W患者]+|\S", text)]


def mentions(text: str) -> list[tuple[int, int]]:
    return [(a, d) for (a, _), (_, d) in product(words(text), repeat=2) if a < d]


def subsets(items: Sequence[object]) -> Iterator[tuple[object, ...]]:
    return chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))


def terms(text: str) -> list[str]:
    """The different surfaces, by the place where each occurs first between boundaries."""
    first = {text[s:e]: (s, e) for s, e in sorted(mentions(text), reverse=True)}
    return sorted(first, key=first.__getitem__)


def quoted(surface: object) -> str:
    return json.dumps(surface, ensure_ascii=False)


def term_list(text: str, labels: list[str]) -> Answers:
    return {f"[{', '.join(map(quoted, chosen))}]" for chosen in subsets(terms(text))}


def term_object(text: str, labels: list[str]) -> Answers:
    lists = [[quoted(label) + ": " + each for each in term_list(text, [])] for label in labels]
    return {"{" + ", ".join(chosen) + "}" for chosen in product(*lists)}


def code(text: str, labels: list[str]) -> Answers:
    names = {"T": "T", "U v": "UV"}
    objects = [f"{names[label]}({quoted(term)})" for term in terms(text) for label in labels]
    return {f"[{', '.join(map(str, chosen))}]" for chosen in subsets(objects)}


def triples(text: str, labels: list[str]) -> Answers:
    found = [quoted([term, "is a", label]) for term in terms(text) for label in labels]
    return {f"[{', '.join(map(str, chosen))}]" for chosen in subsets(found)}


def span_list(text: str, labels: list[str]) -> Answers:
    return {json.dumps([list(pair) for pair in chosen]) for chosen in subsets(sorted(mentions(text)))}  # type: ignore[call-overload]


def span_object(text: str, labels: list[str]) -> Answers:
    lists = [[quoted(label) + ": " + each for each in span_list(text, [])] for label in labels]
    return {"{" + ", ".join(chosen) + "}" for chosen in product(*lists)}


def bio(text: str, labels: list[str]) -> Answers:
    names = [label.replace(" ", "_") for label in labels]
    tags = ["O", *(f"{kind}-{name}" for name in names for kind in "BI")]
    tokens = [text[s:e].replace("\\", "\\\\") for s, e in words(text)]
    found = set()
    for chosen in product(tags, repeat=len(tokens)):
        pairs = zip(("O", *chosen), chosen, strict=False)
        if all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in pairs):
            found.add("\n".join(f"{token}\t{tag}" for token, tag in zip(tokens, chosen, strict=True)))
    return found


def brat(text: str, labels: list[str]) -> Answers:
    one = sorted(mentions(text))
    fragments = [(pair,) for pair in one]
    longest = [fragments]
    while longest[-1]:
        longest.append([(*some, pair) for some in longest[-1] for pair in one if some[-1][1] <= pair[0]])
    lines = sorted((some, rank) for group in longest for some in group for rank in range(len(labels)))
    found = set()
    for chosen in subsets(lines) if len(lines) < 15 else []:
        if sum(len(some) > 1 for some, _ in chosen) > len(words(text)):  # type: ignore[misc]
            continue
        written = []
        for number, (some, rank) in enumerate(chosen, 1):  # type: ignore[misc]
            offsets = ";".join(f"{s} {e}" for s, e in some)
            mention = " ".join(text[s:e] for s, e in some).replace("\\", "\\\\").replace("\n", "\\n")
            written.append(f"T{number}\t{labels[rank].replace(' ', '_')} {offsets}\t{mention}")
        found.add("\n".join(written))
    return found


def tags(opening: Callable[[str], str], closing: Callable[[str], str], special: str) -> Callable[..., Answers]:
    def answers(text: str, labels: list[str]) -> Answers:
        found = set()
        possible = [(s, -e, rank) for s, e in mentions(text) for rank in range(len(labels))]
        for chosen in subsets(sorted(possible)) if len(possible) < 13 else []:
            spans = [(s, -e, rank) for s, e, rank in chosen]  # type: ignore[misc]
            crossing = any(a < c < b < d for (a, b, _), (c, d, _) in product(spans, repeat=2))
            twice = len({(s, rank) for s, _, rank in spans}) < len(spans)
            if crossing or twice:
                continue
            marked: list[str] = []
            for at in range(len(text) + 1):
                marked += [closing(labels[rank]) for s, e, rank in reversed(spans) if e == at]
                marked += [opening(labels[rank]) for s, e, rank in spans if s == at]
                marked += re.sub(special, r"\\\g<0>", text)[0:0] or [_escaped(text, at, special)]
            found.add("".join(marked))
        return found

    return answers


def _escaped(text: str, at: int, special: str) -> str:
    matched = re.compile(special).match(text, at) if at < len(text) else None
    return ("\\" if matched else "") + text[at : at + 1]


# Two tags on the same stretch may stand in either order, and the outer one may be of either type.
LEGAL: dict[str, Callable[[str, list[str]], Answers]] = {
    "conv_term": term_list,
    "single_term": term_list,
    "multi_term": term_object,
    "single_tag": tags(lambda label: "@@", lambda label: "##", r"[@#\\]"),
    "multi_tag": tags(
        lambda label: f"<{label.replace(' ', '_')}>",
        lambda label: f"</{label.replace(' ', '_')}>",
        r"\\|<(?=[A-Za-z/\x80-\U0010ffff])",
    ),
    "single_code": code,
    "multi_code": code,
    "single_span": span_list,
    "multi_span": span_object,
    "multi_triple": triples,
    "multi_bio": bio,
    "multi_brat": brat,
}


def accepted(automaton: ByteAutomaton, limit: int) -> Answers:
    """Every answer, by going all ways."""
    found: set[bytes] = set()
    waiting = [(automaton.start, b"")]
    while waiting and len(found) <= limit:
        state, written = waiting.pop()
        if automaton.accepts(state):
            found.add(written)
        waiting += [(automaton.step(state, byte), written + bytes((byte,))) for byte in automaton.options(state)]
    return {answer.decode() for answer in found}


@pytest.mark.parametrize("name", LEGAL)
def test_every_legal_answer_and_no_other(name: str) -> None:
    form, checked = FORMATS[name], 0
    for text, labels in CASES:
        document = Document("d", text)
        for asked in form.questions(labels):
            legal = LEGAL[name](text, asked)
            if not legal or len(legal) > 5000:
                continue
            found = accepted(form.constraint(document, asked), 8 * len(legal))
            if name == "multi_tag" and len(asked) > 1:  # one stretch, two types: the constraint lets either be outside
                assert legal <= found and {_sorted_tags(a) for a in found} == {_sorted_tags(a) for a in legal}
            else:
                assert found == legal, (text, asked)
            checked += 1
    assert checked >= 12


def _sorted_tags(answer: str) -> str:
    return re.sub(r"(?:<[^<>\\]+>)+", lambda run: "".join(sorted(re.findall(r"<[^>]+>", run.group()))), answer)


def test_closing_is_the_shortest_way() -> None:
    for name, form in FORMATS.items():
        for text in ("a b", "ab a", "é \n患者"):
            for asked in form.questions(["T", "U v"]):
                automaton = form.constraint(Document("d", text), asked)
                legal = [a.encode() for a in accepted(automaton, 4000)]
                if len(legal) > 2000:
                    continue
                shortest: dict[bytes, int] = {}  # what is written already -> the length of the shortest whole answer
                for other in sorted(legal, key=len, reverse=True):
                    shortest.update((other[:n], len(other)) for n in range(len(other) + 1))
                for answer in legal[:: max(1, len(legal) // 40)]:
                    state = automaton.start
                    for n, byte in enumerate(answer):
                        assert len(automaton.closing(state)) == shortest[answer[:n]] - n, (name, answer[:n])
                        state = automaton.step(state, byte)


def test_every_format_is_here() -> None:
    assert LEGAL.keys() == FORMATS.keys()


def bio_grammar(text: str, names: list[str]) -> str:
    """The grounded rules of BIO are regular: one GBNF rule for each token and what the token before was in."""
    tokens = [text[s:e] for s, e in words(text)]
    rules = ["root ::= t0-O"]
    for n, token in enumerate(tokens):
        line = json.dumps(("\n" if n else "") + token + "\t", ensure_ascii=False)
        for inside in ["O", *names]:
            tags = [("O", "O"), *((f"B-{name}", name) for name in names)]
            tags += [(f"I-{inside}", inside)] if inside != "O" else []
            ways = " | ".join(f'"{tag}" t{n + 1}-{after}' for tag, after in tags)
            rules.append(f"t{n}-{inside} ::= {line} ({ways})")
    return "\n".join([*rules, *(f't{len(tokens)}-{inside} ::= ""' for inside in ["O", *names])]) + "\n"


def test_llguidance_allows_the_same_bytes_of_grounded_bio() -> None:
    llguidance = pytest.importorskip("llguidance")
    from llguidance.gbnf_to_lark import gbnf_to_lark

    text, names = "IL-2 β 患者 fell.", ["T", "Ug"]
    automaton = FORMATS["multi_bio"].constraint(Document("d", text), names)
    lark = gbnf_to_lark(bio_grammar(text, names))
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(lark))
    assert not matcher.is_error(), matcher.get_error()
    rng = random.Random(11)
    for _ in range(40):
        matcher.reset()
        state = automaton.start
        while options := sorted(automaton.options(state)):
            bias = matcher.compute_logit_bias()
            assert {byte for byte in range(256) if bias[byte]} == set(options)
            assert matcher.is_accepting() == automaton.accepts(state)
            byte = rng.choice(options)
            matcher.consume_tokens([byte])
            state = automaton.step(state, byte)
        assert matcher.is_accepting() and automaton.accepts(state)
