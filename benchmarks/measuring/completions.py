"""The baseline `llama-cpp-python`: what its documentation tells a user to write today.

    llama = Llama(model_path, n_ctx=…, n_threads=…)
    grammar = LlamaGrammar.from_string(…)
    llama.create_completion(prompt, grammar=grammar, temperature=0, max_tokens=…)

All other settings are its own: a mapped file, no flash attention, a grammar that is tested on the whole vocabulary at
each token. It keeps the beginning of a prompt that is the same as before, and so reads the instruction once. Prompt,
chunks, grammar and the limit of an answer are ours, token by token, so that the two differ in decoding alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioner_edge.backends.contract import Backend
from bioner_edge.backends.kernels import PLAIN, choose, settle
from bioner_edge.backends.llama_cpp import LlamaCpp
from bioner_edge.backends.native import lib, library, listen
from bioner_edge.decoding.loop import Answer
from bioner_edge.decoding.token_masks import Vocabulary
from bioner_edge.document import Document
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.extraction import Extraction
from bioner_edge.formats.contract import Parsed
from bioner_edge.hardware.threads import cores
from bioner_edge.models import gguf_header, memory, registry

if TYPE_CHECKING:
    from llama_cpp.llama_grammar import LlamaGrammar

__all__ = ["Completions", "HighLevel", "complete", "load"]

_MOST_CONTEXT = 2048  # tokens, as our back end takes
_AS_OURS: dict[str, Any] = {"tokenizer.ggml.add_space_prefix": False}  # else a text would have other tokens


class Completions(LlamaCpp):
    """A model in llama-cpp-python's hands, loaded once; of our back end it has what tokenizes and tells templates.

    `read` has the number of tokens of each of its steps.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        header = gguf_header.check(path)
        trained = header.get(f"{header['general.architecture']}.context_length", _MOST_CONTEXT)
        self.context = min(trained, _MOST_CONTEXT)
        count = threads or cores()
        settings: dict[str, Any] = {"n_ctx": self.context, "n_threads": count, "n_threads_batch": count}
        listen()
        from llama_cpp import Llama  # after `native`, which tells why it cannot be loaded

        if settle(choose(path, *library())) == PLAIN:
            told = "its API cannot leave out the kernels that do not work on this processor"
            raise ModelError(f"{path}: llama-cpp-python: {told}")
        try:
            self.llama: Any = Llama(str(path), logits_all=False, verbose=False, kv_overrides=_AS_OURS, **settings)
        except Exception as error:  # it raises whatever its parts raise
            why = " ".join(str(error).split())
            raise ModelError(f"llama-cpp-python: {why}; is it a language model in GGUF, complete?") from None
        self._model = self.llama.model
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._describe()
        self.read: list[int] = []
        step = self.llama.eval

        def counted(tokens: Sequence[int]) -> None:
            self.read.append(len(tokens))
            step(tokens)

        self.llama.eval = counted  # type: ignore[method-assign]

    def close(self) -> None:
        self.llama.close()


def complete(backend: Completions, prompt: Sequence[int], grammar: LlamaGrammar, *, budget: int) -> Answer:
    """One answer, of `budget` tokens at most. Raises ModelError where llama-cpp-python fails."""
    backend.read.clear()
    try:
        made = backend.llama.create_completion(list(prompt), max_tokens=budget, temperature=0.0, grammar=grammar)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"llama-cpp-python: {' '.join(str(error).split())}") from None
    (choice,), tokens = made["choices"], made["usage"]["completion_tokens"]
    calls, fed, prompted = len(backend.read), sum(backend.read), backend.read[0]
    cut = choice["finish_reason"] == "length"
    return Answer(choice["text"].encode(), (), cut, calls, fed, prompted, tokens, tokens)


class _Unread(Vocabulary):
    """Stands for the pieces of the tokens, which nobody asks for here: to read them takes time and memory."""

    def __init__(self, backend: Backend) -> None:
        pass


class HighLevel(Extractor):
    """An extractor whose answers `complete` writes. Its entities have no score: completions tell no probabilities."""

    backend: Completions
    vocabulary_class = _Unread

    def __init__(self, backend: Completions, **settings: Any) -> None:
        from llama_cpp.llama_grammar import LlamaGrammar

        super().__init__(backend, constraint="llama-gbnf", **settings)
        self._grammars = [
            LlamaGrammar.from_string(self.format.gbnf(call.labels), verbose=False) for call in self._calls
        ]

    def __call__(self, source: str | Document) -> Extraction:
        found = super().__call__(source)
        return replace(found, entities=tuple(replace(entity, score=None) for entity in found.entities))

    def _answers(self, part: Document) -> Iterator[tuple[Answer, Parsed]]:
        text = self.backend.tokenize(part.text.encode(), False)
        for call, grammar in zip(self._calls, self._grammars, strict=True):
            prompt = [*call.before, *text, *call.after]
            budget = min(self.backend.context - len(prompt), self._budget(part, text))
            answer = complete(self.backend, prompt, grammar, budget=budget)
            yield answer, call.read(answer, part)


def load(
    model: str,
    *,
    format: str,
    labels: Sequence[str],
    guidelines: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
) -> HighLevel:
    """As `bioner_edge.load`. Raises UsageError for an ONNX model."""
    path, manifest = registry.find(model)
    if path.is_dir():
        raise UsageError(f"{path}: llama-cpp-python reads GGUF models alone; take another decoding")
    memory.refuse_larger(path, force)
    backend = Completions(path, threads=threads)
    try:
        return HighLevel(
            backend,
            format=format,
            labels=labels,
            guidelines=guidelines or (manifest.guidelines if manifest else None),
            unit=manifest.unit if manifest else "document",
        )
    except BaseException:
        backend.close()
        raise
