"""The baseline `llama-cpp-python`, used as its documentation recommends.

    llama = Llama(model_path, n_ctx=…, n_threads=…)
    grammar = LlamaGrammar.from_string(…)
    llama.create_completion(prompt, grammar=grammar, temperature=0, max_tokens=…)

All other settings are its defaults: a mapped file, no flash attention, a grammar tested on the whole vocabulary at each
token. It keeps the longest common prefix of prompts, so it reads the instruction once. Prompt, chunks, grammar and
answer budget are ours, token by token, so that only decoding differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bioner_edge.backends.contract import Batch, CachedSequence, Logits, check_batch, check_filled
from bioner_edge.backends.kernels import PLAIN, choose, settle
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.native import lib, library, listen
from bioner_edge.constraints import Constraint, LateVocabulary, salvage
from bioner_edge.decoding.loop import Answer
from bioner_edge.document import Document
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.formats.contract import Format
from bioner_edge.hardware.threads import cores
from bioner_edge.models import gguf_header, memory, registry

if TYPE_CHECKING:
    from llama_cpp.llama_grammar import LlamaGrammar

__all__ = ["COMPLETIONS", "Completions", "complete", "load"]

_MOST_CONTEXT = 2048  # tokens, as in our back end
_AS_OURS: dict[str, Any] = {"tokenizer.ggml.add_space_prefix": False}  # otherwise a text would have different tokens


class Completions(LlamaCpp):
    """A model loaded by llama-cpp-python; our back end provides tokenization and templates.

    `read` has the number of tokens of each step.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        header = gguf_header.check(path)
        trained = header.get(f"{header['general.architecture']}.context_length", _MOST_CONTEXT)
        self.context = min(trained, _MOST_CONTEXT)
        number = threads or cores()
        settings: dict[str, Any] = {"n_ctx": self.context, "n_threads": number, "n_threads_batch": number}
        listen()
        from llama_cpp import Llama  # after `native`, which explains why it cannot be loaded

        if settle(choose(path, *library())) == PLAIN:
            message = "its API cannot leave out the kernels that do not work on this processor"
            raise ModelError(f"{path}: llama-cpp-python: {message}")
        try:
            self.llama: Any = Llama(str(path), logits_all=False, verbose=False, kv_overrides=_AS_OURS, **settings)
        except Exception as error:  # it raises whatever its parts raise
            why = " ".join(str(error).split())
            raise ModelError(f"llama-cpp-python: {why}; is it a language model in GGUF, complete?") from None
        self._model = self.llama.model
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._describe()
        self.read: list[int] = []
        self._written: dict[int, list[int]] = {}
        self._slots = count()
        step = self.llama.eval

        def counted(tokens: Sequence[int]) -> None:
            self.read.append(len(tokens))
            step(tokens)

        self.llama.eval = counted  # type: ignore[method-assign]

    def written(self, sequence: CachedSequence) -> list[int]:
        """The token ids of a sequence. There is one cache; a sequence shares a prefix of it or nothing."""
        return self._written[sequence.slot]

    def new_sequence(self) -> CachedSequence:
        return self._sequence([])

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        check_filled(sequence, upto)
        return self._sequence(self.written(sequence)[:upto])

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        check_filled(sequence, length)
        del self.written(sequence)[length:]
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        check_filled(sequence, 0)
        del self._written[sequence.slot]
        sequence.slot = -1

    def eval_batch(self, batch: Batch) -> list[Logits]:
        check_batch(batch)
        return [self._read(sequence, ids).copy() for sequence, ids in batch]

    def _read(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        """Evaluate the tokens that are not in the cache, as a completion does."""
        tokens = [*self.written(sequence), *ids]
        cached = self.llama.input_ids[: self.llama.n_tokens]
        same = 0
        while same < min(len(cached), len(tokens) - 1) and cached[same] == tokens[same]:
            same += 1
        self.llama.n_tokens = same
        self.llama.eval(tokens[same:])
        self._written[sequence.slot] = tokens
        sequence.length = len(tokens)
        return np.ctypeslib.as_array(self.llama._ctx.get_logits(), shape=(self.vocabulary_size,))

    def _sequence(self, ids: list[int]) -> CachedSequence:
        slot = next(self._slots)
        self._written[slot] = ids
        return CachedSequence(slot, len(ids))

    def close(self) -> None:
        self.llama.close()


def complete(backend: Completions, prompt: Sequence[int], grammar: LlamaGrammar, *, budget: int) -> Answer:
    """One answer of at most `budget` tokens. Raises ModelError where llama-cpp-python fails."""
    backend.read.clear()
    try:
        made = backend.llama.create_completion(list(prompt), max_tokens=budget, temperature=0.0, grammar=grammar)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"llama-cpp-python: {' '.join(str(error).split())}") from None
    (choice,), tokens = made["choices"], made["usage"]["completion_tokens"]
    calls, fed, prompted = len(backend.read), sum(backend.read), backend.read[0]
    cut = choice["finish_reason"] == "length"
    return Answer(choice["text"].encode(), (), cut, calls, fed, prompted, tokens, tokens)


def _grammar(form: Format, labels: Sequence[str], document: Document, vocabulary: LateVocabulary) -> LlamaGrammar:
    from llama_cpp.llama_grammar import LlamaGrammar

    return LlamaGrammar.from_string(form.gbnf(labels), verbose=False)


def _decode(
    backend: Completions,
    sequence: CachedSequence,
    prompt: Sequence[int],
    grammar: LlamaGrammar,
    *,
    budget: int,
    removed_mass: bool,
) -> Answer:
    return complete(backend, [*backend.written(sequence), *prompt], grammar, budget=budget)


COMPLETIONS = Constraint("llama-cpp-python", _grammar, salvage, _decode, llama_only=True)
"""Its entities have no score: completions return no probabilities."""


def load(model: str, *, unit: str | None, threads: int | None, force: bool, **settings: Any) -> Extractor:
    """As `bioner_edge.load`. Raises UsageError for an ONNX model."""
    path, manifest = registry.find(model)
    if path.is_dir():
        raise UsageError(f"{path}: llama-cpp-python reads GGUF models alone; take another constraint")
    memory.refuse_larger(path, force)
    settings["guidelines"] = settings["guidelines"] or (manifest.guidelines if manifest else None)
    settings["unit"] = unit or (manifest.unit if manifest else "document")
    backend = Completions(path, threads=threads)
    try:
        return Extractor(backend, constraint=COMPLETIONS, **settings)
    except BaseException:
        backend.close()
        raise
