"""Inference by onnxruntime: a folder with a graph and its tokenizer, run with numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers

from bioner_edge.backends.contract import CachedSequence, ContextFull, Logits, refuse_outside
from bioner_edge.backends.onnx import session as onnx_session
from bioner_edge.backends.onnx.cache import CACHES, Cache, probe
from bioner_edge.backends.onnx.session import MOST_ROWS, MOST_TOKENS, Step
from bioner_edge.backends.onnx.tokenizer import HfTokenizer
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.hardware.threads import cores
from bioner_edge.models.onnx import folder as onnx_folder
from bioner_edge.models.onnx.folder import Runtime
from bioner_edge.models.onnx.signature import Signature, signature

__all__ = ["OnnxRuntime"]

_MOST_CONTEXT = 2048  # of itself: chunks of a sentence or an abstract need no more, and scratch memory grows with it


class OnnxRuntime:
    """An ONNX model loaded for CPU inference.

    `context` is in tokens, by default what the model was trained for, at most 2048; each sequence has as much for
    itself. Raises ModelError for a folder that is no sound model, UsageError for a context that it was not trained for.
    """

    def __init__(self, folder: Path, *, context: int | None = None, threads: int | None = None) -> None:
        form, runtime = _checked(folder), Runtime.load(folder)
        self.end_tokens = frozenset(runtime.end_tokens)
        self._tokenizer = HfTokenizer(folder / "tokenizer.json", self.end_tokens)
        _check_ids(folder, form, runtime, self._tokenizer.size)
        self.context = context or min(runtime.context, _MOST_CONTEXT)
        if not 0 < self.context <= runtime.context:
            message = f"a context of {context} tokens was asked for, but it was trained for {runtime.context}"
            raise UsageError(f"{folder}: {message}; take one of at most as many")
        self.vocabulary_size = form.vocabulary_size
        self.bytes_per_position = form.bytes_per_position
        """What a token takes in the cache; what is not filled takes nothing."""
        self.bos = runtime.bos
        self.chat_template = runtime.chat_template
        self.template_tokens: Mapping[str, str] = {"bos_token": runtime.bos_token, "eos_token": runtime.eos_token}
        self.runtime = f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}"
        self.threads = threads or cores()
        self._cache = _loaded(folder / "model.onnx", form, runtime.cache, self.context, self.threads)
        self._free = set(range(MOST_ROWS))

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return self._tokenizer.tokenize(text, special)

    def piece(self, token: int) -> bytes | None:
        return self._tokenizer.piece(token)

    def new_sequence(self) -> CachedSequence:
        if not self._free:
            raise RuntimeError(f"all {MOST_ROWS} sequences are in use; release one")
        slot = min(self._free)  # side by side as far as may be, for `eval_batch`
        self._free.remove(slot)
        return CachedSequence(slot)

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        self._refuse_overflow(sequence, ids)
        before = sequence.length
        try:
            for at in range(0, len(ids), MOST_TOKENS):
                part = ids[at : at + MOST_TOKENS]
                logits = self._cache.read([sequence.slot], [sequence.length], part)
                sequence.length += len(part)
        except BaseException:
            sequence.length = before
            raise
        last: Logits = logits[0]
        return last

    def eval_batch(self, sequences: Sequence[CachedSequence], ids: Sequence[Sequence[int]]) -> Logits:
        """Append to each sequence its own ids, at least one, and return the logits after the last of each: an array
        (sequences, vocabulary_size) of its own.

        Where slots are neighbours and read one token each, they are read in one run, if the graph's cache allows it.
        Raises ContextFull, with all sequences as they were, where one has no room.
        """
        if len({sequence.slot for sequence in sequences}) < len(sequences):
            raise ValueError("a sequence stands twice in the batch")
        for sequence, own in zip(sequences, ids, strict=True):
            self._refuse_overflow(sequence, own)
        before = [sequence.length for sequence in sequences]
        logits = np.empty((len(sequences), self.vocabulary_size), np.float32)
        try:
            for group in self._together(sequences, ids):
                if len(group) == 1:
                    logits[group[0]] = self.eval(sequences[group[0]], ids[group[0]])
                    continue
                members = [sequences[n] for n in group]
                slots, pasts = [s.slot for s in members], [s.length for s in members]
                logits[group] = self._cache.read(slots, pasts, [ids[n][0] for n in group])
                for sequence in members:
                    sequence.length += 1
        except BaseException:
            for sequence, length in zip(sequences, before, strict=True):
                sequence.length = length
            raise
        return logits

    def _together(self, sequences: Sequence[CachedSequence], ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """The indices of the sequences, those in one list that one run can read."""
        group: list[int] = []
        for n in sorted(range(len(sequences)), key=lambda n: sequences[n].slot):
            fits = self._cache.together and group and len(ids[n]) == len(ids[group[-1]]) == 1
            if group and not (fits and sequences[n].slot == sequences[group[-1]].slot + 1):
                yield group
                group = []
            group.append(n)
        if group:
            yield group

    def _refuse_overflow(self, sequence: CachedSequence, ids: Sequence[int]) -> None:
        if not ids:
            raise ValueError("eval needs at least one token")
        if sequence.slot < 0 or sequence.length + len(ids) > self.context:
            refuse_outside(sequence, sequence.length)
            raise ContextFull(f"no room for {len(ids)} tokens after {sequence.length} in a context of {self.context}")

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        refuse_outside(sequence, upto)
        other = self.new_sequence()
        try:
            self._cache.copy(sequence.slot, other.slot, upto)
        except BaseException:
            self.release(other)
            raise
        other.length = upto
        return other

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        refuse_outside(sequence, length)
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        refuse_outside(sequence, 0)
        self._free.add(sequence.slot)
        sequence.slot, sequence.length = -1, 0

    def close(self) -> None:
        """Free the model and the cache; it may be called again."""
        self._free.clear()
        if hasattr(self, "_cache"):
            del self._cache

    def __enter__(self) -> OnnxRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(folder: Path) -> Signature:
    """The signature of a graph that refers to nothing outside its folder."""
    graph = onnx_folder.check_confined(folder)
    if _version() < (1, 26) and any(tensor.external for tensor in graph.tensors):
        onnx_folder.hashes_match(folder)  # these follow references out of the folder, in ways not all known
    return signature(graph, folder / "model.onnx")


def _version() -> tuple[int, int]:
    """That of onnxruntime."""
    major, minor, *_ = onnxruntime.__version__.split(".")
    return int(major), int(minor)


def _loaded(path: Path, form: Signature, kind: str, context: int, threads: int) -> Cache:
    """The graph with an empty cache. Raises ModelError where its cache is of another kind than is said."""
    session = onnx_session.session(path, threads)
    found, pruned = probe(session, form, path)
    if found != kind:
        raise ModelError(f"{path}: the graph's cache is {found}, but runtime.json says {kind}; convert it again")
    return CACHES[kind](session, form, Step(session, form, path, context, pruned=pruned), context)


def _check_ids(folder: Path, form: Signature, runtime: Runtime, tokens: int) -> None:
    """Raises ModelError where a token is none of the graph's: reading it would be an error, or worse."""
    size = form.vocabulary_size
    if tokens > size:
        message = f"{tokens} tokens, but the graph knows {size}; they are not of one model"
        raise ModelError(f"{folder / 'tokenizer.json'}: {message}: convert it again")
    named = {"bos": [] if runtime.bos is None else [runtime.bos], "end_tokens": runtime.end_tokens}
    for key, ids in named.items():
        if more := [token for token in ids if token >= size]:
            message = f"{key!r} has the token {more[0]}, but the graph knows {size}"
            raise ModelError(f"{folder / 'runtime.json'}: {message}; convert it again")
