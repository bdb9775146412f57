"""What `studies.constraints` times: an answer played through a constraint, at every token and in the decode loop."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from bioner_edge import formats
from bioner_edge.backends.contract import CachedSequence, Logits
from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.benchmarks.baselines.llama_sampler import LlamaGrammar
from bioner_edge.decoding.automaton import ByteAutomaton, State
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import decode
from bioner_edge.decoding.token_masks import Ids, TokenMask, Vocabulary
from bioner_edge.document import Document
from bioner_edge.errors import BionerError

__all__ = ["Player", "Row", "Steps", "TimedMask", "mask_maker", "rows", "walk"]

_MAX_WHOLE = 200  # tokens, spread over the answers, at which llama.cpp tests its whole vocabulary

Answers = list[tuple[list[str], list[tuple[Document, bytes]]]]
"""For each call its labels, and the documents with their gold answers."""


class Player(VocabOnly):
    """The vocabulary of a GGUF file without its weights, as a fake model that writes `answer`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.vocabulary = Vocabulary(self)
        self._logits = np.zeros(self.vocabulary_size, np.float32)

    def write(self, answer: bytes, mask: TimedMask) -> int:
        """Write `answer` with the decode loop; returns the time of the loop in ns."""
        self._answer, self._mask, self._at, self._own_ns = answer, mask, 0, 0
        started = time.perf_counter_ns()
        found = decode(self, CachedSequence(0), [], mask, budget=1 << 30, removed_mass=False)
        spent_ns = time.perf_counter_ns() - started - self._own_ns
        if found.data != answer:
            raise BionerError(f"the loop wrote {found.data[:80]!r}… instead of the answer {answer[:80]!r}…")
        return spent_ns

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        started = time.perf_counter_ns()
        self._mask.asked()
        self._at += len(self.vocabulary.spell(ids))
        self._logits[:] = 0
        node = 0
        for depth, byte in enumerate(self._answer[self._at :], 1):
            node = self.vocabulary.children[node].get(byte, 0)
            if not node:
                break
            self._logits[self.vocabulary.ids[node]] = 40 + depth  # of all the mass: it means what it writes
        if self._at == len(self._answer):
            self._logits[self.vocabulary.end_ids] = 40
        self._own_ns += time.perf_counter_ns() - started
        return self._logits


# What is measured


@dataclass
class Steps:
    """Times of single steps, and the number of tokens allowed at each."""

    ns: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        if not self.ns:
            return {"count": 0}
        median, p99, most = np.percentile(np.array(self.ns) / 1000, [50, 99, 100]).round(2).tolist()
        found = {"count": len(self.ns), "median_us": median, "p99_us": p99, "max_us": most}
        return found | ({"median_ids": float(np.median(self.ids))} if self.ids else {})


class TimedMask(TokenMask):
    """A mask that times its calls."""

    def __init__(self, automaton: ByteAutomaton, vocabulary: Vocabulary, steps: Steps) -> None:
        self.steps, self.open_ns, self.open_ids = steps, 0, 0
        super().__init__(automaton, vocabulary)

    def allowed(self, state: State) -> Ids:
        started = time.perf_counter_ns()
        found = super().allowed(state)
        self.open_ns += time.perf_counter_ns() - started
        self.open_ids = len(found)
        return found

    def asked(self) -> None:
        """Record the calls since the last time as one step."""
        self.steps.ns.append(self.open_ns)
        self.steps.ids.append(self.open_ids)
        self.open_ns = 0


@dataclass
class Row:
    """One format under one constraint; `choices` and `loop_ns` only where our loop decodes."""

    format: str
    constraint: str
    build_ns: list[int] = field(default_factory=list)
    tokens: Steps = field(default_factory=Steps)
    choices: Steps = field(default_factory=Steps)
    loop_ns: list[int] = field(default_factory=list)
    failed: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {"format": self.format, "constraint": self.constraint}
        if self.failed:
            return found | {"failed": self.failed}
        build = np.array(self.build_ns) / 1e6
        found |= {"build_median_ms": round(float(np.median(build)), 3), "build_max_ms": round(float(build.max()), 3)}
        found |= {"tokens": self.tokens.figures(), "choices": self.choices.figures()}
        return found | ({"loop_median_ms": round(float(np.median(self.loop_ns)) / 1e6, 2)} if self.loop_ns else {})


def rows(player: Player, name: str, labels: Sequence[str], documents: Sequence[Document]) -> Iterator[Row]:
    """The rows of one format, including failures."""
    form = formats.get(name)
    answers = [(asked, [(d, form.render(d, asked).encode()) for d in documents]) for asked in form.questions(labels)]
    for constraint, measure in _MEASURES.items():
        row = Row(name, constraint)
        try:
            measure(player, row, answers)
        except (BionerError, ImportError) as error:
            row.failed = str(error)
        yield row


def _ours(player: Player, row: Row, answers: Answers) -> None:
    for labels, asked in answers:
        make = mask_maker(player, labels, row, row.tokens)
        for document, answer in asked:
            walk(make(document), player.tokenize(answer, False))
        make = mask_maker(player, labels, row, row.choices)
        row.loop_ns += [player.write(answer, make(document)) for document, answer in asked]


def mask_maker(player: Player, labels: list[str], row: Row, steps: Steps) -> Callable[[Document], TimedMask]:
    """A function that returns a document's mask, or one mask shared by all documents."""
    form, grounded = formats.get(row.format), row.constraint == "grounded"
    shared: list[TimedMask] = []

    def make(document: Document) -> TimedMask:
        if shared:
            return shared[0]
        started = time.perf_counter_ns()
        automaton = form.constraint(document, labels) if grounded else GrammarAutomaton(form.gbnf(labels))
        mask = TimedMask(automaton, player.vocabulary, steps)
        row.build_ns.append(time.perf_counter_ns() - started)
        if not grounded:
            shared.append(mask)
        return mask

    return make


def walk(mask: TokenMask, tokens: Sequence[int]) -> None:
    """Query the mask before each token."""
    state: State = mask.automaton.start
    for token in tokens:
        mask.allowed(state)
        if isinstance(mask, TimedMask):
            mask.asked()
        for byte in mask.vocabulary.pieces[token] or b"":
            state = mask.automaton.step(state, byte)
            if state is None:
                raise BionerError("the constraint refuses the answer")


def _llama_cpp(player: Player, row: Row, answers: Answers) -> None:
    whole, everything, seen = row.constraint == _WHOLE, np.arange(player.vocabulary_size), count()
    total = sum(len(player.tokenize(answer, False)) for _, asked in answers for _, answer in asked)
    for labels, asked in answers:
        started = time.perf_counter_ns()
        with LlamaGrammar(player, formats.get(row.format).gbnf(labels)) as engine:
            row.build_ns.append(time.perf_counter_ns() - started)
            for _, answer in asked:
                engine.reset()
                for token in player.tokenize(answer, False):
                    favourite = np.array([token])
                    if not whole:
                        _timed(row.tokens, engine.allows, favourite)
                    elif next(seen) % max(1, total // _MAX_WHOLE) == 0:
                        row.tokens.ids.append(int(_timed(row.tokens, engine.allows, everything).sum()))
                    if not engine.allows(favourite).all():  # accepting it would end the process
                        raise BionerError(f"llama.cpp refuses a token of the answer {answer[:80]!r}…")
                    engine.accept(token)


def _llguidance(player: Player, row: Row, answers: Answers) -> None:
    import llguidance
    from llguidance.gbnf_to_lark import gbnf_to_lark

    tokenizer = _tokenizer(player)
    for labels, asked in answers:
        lark = gbnf_to_lark(_unescape(formats.get(row.format).gbnf(labels)))
        started = time.perf_counter_ns()
        matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(lark))
        row.build_ns.append(time.perf_counter_ns() - started)
        for _, answer in asked:
            matcher.reset()
            for token in player.tokenize(answer, False):
                mask = _timed(row.tokens, matcher.compute_bitmask)
                row.tokens.ids.append(int.from_bytes(mask, "little").bit_count())
                if not matcher.consume_token(token):
                    raise BionerError(matcher.get_error().split("\n")[0])


def _timed(steps: Steps, asked: Callable[..., Any], *arguments: object) -> Any:
    started = time.perf_counter_ns()
    found = asked(*arguments)
    steps.ns.append(time.perf_counter_ns() - started)
    return found


_WHOLE = "llama.cpp, whole vocabulary"
_MEASURES: dict[str, Callable[[Player, Row, Answers], None]] = {
    "grounded": _ours,
    "gbnf": _ours,
    _WHOLE: _llama_cpp,
    "llama.cpp, favourite first": _llama_cpp,
    "llguidance": _llguidance,
}


@lru_cache(maxsize=1)  # one takes a second to make
def _tokenizer(player: Player) -> Any:
    from llguidance.llamacpp import lltokenizer_from_vocab

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of llama-cpp-python's names
        return lltokenizer_from_vocab(player._vocab)


def _unescape(gbnf: str) -> str:
    r"""The grammar with the characters themselves for \u… and \U…, whose zeros llguidance's converter drops."""

    def plain(match: re.Match[str]) -> str:
        digits = match[1] or match[2]
        return chr(int(digits, 16)) if digits else match[0]

    return re.sub(r"\\(?:u(\w{4})|U(\w{8})|.)", plain, gbnf)
