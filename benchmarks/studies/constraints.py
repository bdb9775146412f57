"""Cost of a constraint: to build it for a document, and at each token; compared with llama.cpp's sampler and
llguidance.

    python -m bioner_edge.benchmarks.studies.constraints --vocab FILE [--corpus FILE] [--documents 20] [--formats A,B]

No weights are needed. `--vocab` is any GGUF file, of which only the vocabulary is read. One of 152k tokens comes with
the source of llama-cpp-python:

    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz --strip-components=4 --wildcards '*/models/ggml-vocab-qwen2.gguf'

Every figure is measured along the gold answer of a document, in two ways. At every token: the allowed tokens are
computed before each token of the answer's canonical tokenization. At choices: the decode loop writes the answer, with a
fake model that prefers the longest token that continues it, so that forced tokens are skipped; µs are then the time
spent in the constraint between two steps of the model. `loop` is the time of the whole loop for one answer, without the
model's. A grounded constraint is built for each document and starts with an empty cache, as in extraction; a grammar is
built once and keeps its cache. llama.cpp tests either the whole vocabulary, as llama-cpp-python does, or only the next
token, as the baseline `llama-gbnf` does; llguidance computes a mask for the same grammar.

The second table is growth: abstracts joined to 1k, 10k and 100k characters, one answer. Peak memory is that of
constraint and mask by tracemalloc, as a multiple of the text's bytes; it is measured in a separate run, since tracing
is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import bioner_edge
from bioner_edge import formats
from bioner_edge.backends.contract import CachedSequence, Logits
from bioner_edge.backends.vocab_only import VocabOnly
from bioner_edge.benchmarks.baselines.llama_sampler import LlamaGrammar
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.decoding.automaton import ByteAutomaton, State
from bioner_edge.decoding.gbnf import GrammarAutomaton
from bioner_edge.decoding.loop import decode
from bioner_edge.decoding.token_masks import Ids, TokenMask, Vocabulary
from bioner_edge.document import Document, Entity
from bioner_edge.errors import BionerError, UsageError
from bioner_edge.io.reading import read_file

__all__ = ["Player", "Row", "Steps", "growth", "joined", "main", "rows"]

_EXAMPLES = Path(bioner_edge.__file__).parent / "examples" / "abstracts.pubtator"
_SHORTEST, _LONGEST = 1300, 1700  # characters of an abstract
_MOST_WHOLE = 200  # tokens, spread over the answers, at which llama.cpp tests its whole vocabulary
_LIMIT_S = 60.0  # for one measurement of growth

Answers = list[tuple[list[str], list[tuple[Document, bytes]]]]
"""For each call its labels, and the documents with their gold answers."""


class Player(VocabOnly):
    """The vocabulary of a GGUF file without its weights, as a fake model that writes `answer`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.vocabulary = Vocabulary(self)
        self._logits = np.zeros(self.vocabulary_size, np.float32)

    def write(self, answer: bytes, mask: _Timed) -> int:
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


class _Timed(TokenMask):
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
        make = _maker(player, labels, row, row.tokens)
        for document, answer in asked:
            _walk(make(document), player.tokenize(answer, False))
        make = _maker(player, labels, row, row.choices)
        row.loop_ns += [player.write(answer, make(document)) for document, answer in asked]


def _maker(player: Player, labels: list[str], row: Row, steps: Steps) -> Callable[[Document], _Timed]:
    """A function that returns a document's mask, or one mask shared by all documents."""
    form, grounded = formats.get(row.format), row.constraint == "grounded"
    shared: list[_Timed] = []

    def make(document: Document) -> _Timed:
        if shared:
            return shared[0]
        started = time.perf_counter_ns()
        automaton = form.constraint(document, labels) if grounded else GrammarAutomaton(form.gbnf(labels))
        mask = _Timed(automaton, player.vocabulary, steps)
        row.build_ns.append(time.perf_counter_ns() - started)
        if not grounded:
            shared.append(mask)
        return mask

    return make


def _walk(mask: TokenMask, tokens: Sequence[int]) -> None:
    """Query the mask before each token."""
    state: State = mask.automaton.start
    for token in tokens:
        mask.allowed(state)
        if isinstance(mask, _Timed):
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
                    elif next(seen) % max(1, total // _MOST_WHOLE) == 0:
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


# Growth


def joined(documents: Sequence[Document], size: int) -> Document:
    """Documents joined, repeated where too few, up to `size` characters."""
    text, entities = "", list[Entity]()
    while len(text) < size:
        for document in documents:
            entities += [e.shifted(len(text)) for e in document.entities]
            text += document.text + "\n"
            if len(text) >= size:
                break
    return Document(f"{size}", text[:size], tuple(e for e in entities if e.end <= size))


def growth(
    player: Player, name: str, labels: Sequence[str], document: Document, limit_s: float = _LIMIT_S
) -> dict[str, Any]:
    """Build, query before each token of the gold answer, step; then again under tracemalloc. `failed`: what took too
    long."""
    form, row = formats.get(name), Row(name, "grounded")
    asked = form.questions(labels)[0]
    found: dict[str, Any] = {"format": name, "characters": len(document.text)}
    try:
        with _time_limit(limit_s):
            tokens = player.tokenize(form.render(document, asked).encode(), False)
            mask = _maker(player, asked, row, row.tokens)(document)
            started = time.perf_counter()
            _walk(mask, tokens)
            found["walk_s"] = round(time.perf_counter() - started, 3)
        found |= {"build_ms": round(row.build_ns[0] / 1e6, 2), "tokens": row.tokens.figures()}
        del mask
        with _time_limit(limit_s):
            tracemalloc.start()
            try:
                _walk(TokenMask(form.constraint(document, asked), player.vocabulary), tokens)
                peak_bytes = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        found["peak_bytes_per_byte"] = round(peak_bytes / len(document.text.encode()), 1)
    except TimeoutError:
        found["failed"] = f"> {limit_s:g} s"
    return found


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread once the time is over."""

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# The script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a file cannot be read or a format is unknown."""
    parser = argparse.ArgumentParser(
        prog="python -m bioner_edge.benchmarks.studies.constraints", description="Constraints."
    )
    parser.add_argument("--vocab", type=Path, required=True, help="a GGUF file; its vocabulary is read")
    parser.add_argument("--corpus", type=Path, help="documents with entities [default: BC5CDR dev, else the examples]")
    parser.add_argument("--documents", type=int, default=20, help="abstracts to measure [default: 20]")
    parser.add_argument("--formats", default=",".join(formats.FORMATS), help="comma-separated [default: all]")
    parser.add_argument(
        "--sizes", default="1000,10000,100000", help="characters, for growth [default: 1000,10000,100000]"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines in place of tables")
    asked = parser.parse_args(arguments)
    try:
        _report(asked)
    except BionerError as error:
        print(f"constraints: {error}", file=sys.stderr)
        return 2
    return 0


def _report(asked: argparse.Namespace) -> None:
    names = [name for name in asked.formats.split(",") if formats.get(name)]
    sizes = [int(size) for size in asked.sizes.split(",") if size]
    corpus = asked.corpus or _corpus()
    everything = list(read_file(corpus, lambda notice: None))
    abstracts = [d for d in everything if _SHORTEST <= len(d.text) <= _LONGEST]
    documents = (abstracts or everything)[: asked.documents]
    labels = sorted({e.label for d in documents for e in d.entities})
    if not labels:
        raise UsageError(f"{corpus}: no document has an entity; give documents with gold annotations")
    with closing(Player(asked.vocab)) as player:
        lengths = [len(d.text) for d in documents]
        ran_on = [
            *machine.describe(("bioner-edge", "llama-cpp-python", "numpy")),
            f"{asked.vocab.name}: {player.vocabulary_size} tokens",
            f"{corpus.name}: {len(documents)} documents of {min(lengths)} to {max(lengths)} characters, "
            f"labels {', '.join(labels)}",
        ]
        _print(asked.json, {"machine": ran_on}, "\n".join(f"- {line}" for line in ran_on) + f"\n{_head(_STEPS)}")
        for name in names:
            for row in rows(player, name, labels, documents):
                _print(asked.json, record := row.record(), _line(record, _STEPS))
        if sizes:
            _print(asked.json, {}, _head(_GROWTH))
        for name in names:
            for size in sizes:
                record = growth(player, name, labels, joined(everything, size))
                _print(asked.json, record, _line(record, _GROWTH))


def _corpus() -> Path:
    folder = os.environ.get("BIONER_CORPORA") or Path(bioner_edge.__file__).parents[2] / "shared" / "corpora"
    path = Path(folder) / "bc5cdr" / "dev.PubTator.txt"
    return path if path.is_file() else _EXAMPLES


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    if not as_json:
        print(text, flush=True)
    elif record:
        print(json.dumps(record, ensure_ascii=False), flush=True)


_TIMES = {"µs": "median_us", "p99": "p99_us", "max": "max_us"}
_STEPS = [("format", "format"), ("constraint", "constraint"), ("build, ms", "build_median_ms"), ("max", "build_max_ms")]
for _part in ("tokens", "choices"):
    _STEPS += [(_part, f"{_part}.count"), *((head, f"{_part}.{key}") for head, key in _TIMES.items())]
    _STEPS += [("ids", f"{_part}.median_ids")]
_STEPS += [("loop, ms", "loop_median_ms")]
_GROWTH = [("format", "format"), ("characters", "characters"), ("tokens", "tokens.count"), ("build, ms", "build_ms")]
_GROWTH += [("walk, s", "walk_s"), *((head, f"tokens.{key}") for head, key in _TIMES.items())]
_GROWTH += [("peak memory / text", "peak_bytes_per_byte")]


def _head(columns: Sequence[tuple[str, str]]) -> str:
    return f"\n| {' | '.join(head for head, _ in columns)} |\n|{len(columns) * '---|'}"


def _line(record: dict[str, Any], columns: Sequence[tuple[str, str]]) -> str:
    """A row of a Markdown table; the first cell that a failure left empty says what happened."""
    failed, cells = record.get("failed", ""), []
    for _, column in columns:
        outer, _, inner = column.partition(".")
        value = record.get(outer, {}).get(inner, "") if inner else record.get(outer, "")
        if value == "" and failed:
            value, failed = failed, ""
        cells.append(str(value))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
