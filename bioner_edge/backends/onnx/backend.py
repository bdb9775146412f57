"""Inference by onnxruntime: runs a folder with a graph and its tokenizer, with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime
import tokenizers
from packaging.version import Version

from bioner_edge.backends.contract import Batch, CachedSequence, Logits, check_batch, check_filled, check_room
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

_MOST_CONTEXT = 2048  # by default: sentences and abstracts need no more, and scratch memory grows with it


class OnnxRuntime:
    """An ONNX model loaded for CPU inference.

    `context` is in tokens per sequence, by default the model's training context, at most 2048. Raises ModelError for an
    invalid or damaged folder, UsageError for a context longer than in training.
    """

    def __init__(self, folder: Path, *, context: int | None = None, threads: int | None = None) -> None:
        form, runtime = _load_signature(folder), Runtime.load(folder)
        self.end_tokens = frozenset(runtime.end_tokens)
        self._tokenizer = HfTokenizer(folder / "tokenizer.json", self.end_tokens)
        _check_ids(folder, form, runtime, self._tokenizer.size)
        self.context = context or min(runtime.context, _MOST_CONTEXT)
        if not 0 < self.context <= runtime.context:
            message = f"a context of {context} tokens was requested, but the model was trained for {runtime.context}"
            raise UsageError(f"{folder}: {message}; request at most that many")
        self.vocabulary_size = form.vocabulary_size
        self.bos = runtime.bos
        self.chat_template = runtime.chat_template
        self.template_tokens: Mapping[str, str] = {"bos_token": runtime.bos_token, "eos_token": runtime.eos_token}
        self.runtime = f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}"
        self.threads = threads or cores()
        self._cache = _load_cache(folder / "model.onnx", form, runtime.cache, self.context, self.threads)
        self._free = set(range(MOST_ROWS))

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        return self._tokenizer.tokenize(text, special)

    def piece(self, token: int) -> bytes | None:
        return self._tokenizer.piece(token)

    def new_sequence(self) -> CachedSequence:
        if not self._free:
            raise RuntimeError(f"all {MOST_ROWS} sequences are in use; release one")
        slot = min(self._free)  # adjacent slots where possible: `eval_batch` reads them in one run
        self._free.remove(slot)
        return CachedSequence(slot)

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        return self.eval_batch([(sequence, ids)])[0]

    def eval_batch(self, batch: Batch) -> list[Logits]:
        """As in `Backend`. Single tokens of sequences in adjacent slots are read in one run if the graph's cache allows
        it, all else sequence by sequence."""
        check_batch(batch)
        check_room(batch, self.context)
        before = [sequence.length for sequence, _ in batch]
        logits: dict[int, Logits] = {}
        groups = self._group(batch)
        try:
            for group in groups:
                rows = self._read([batch[n] for n in group])
                if group is not groups[-1]:
                    rows = rows.copy()  # the next run overwrites them
                logits.update(zip(group, rows, strict=True))
        except BaseException:
            for (sequence, _), length in zip(batch, before, strict=True):
                sequence.length = length
            raise
        return [logits[n] for n in range(len(batch))]

    def _group(self, batch: Batch) -> list[list[int]]:
        """Group the indices of a batch that one run can read together."""
        groups: list[list[int]] = []
        for n in sorted(range(len(batch)), key=lambda n: batch[n][0].slot):
            last = batch[groups[-1][-1]] if groups and self._cache.together else None
            if last and batch[n][0].slot == last[0].slot + 1 and len(batch[n][1]) == len(last[1]) == 1:
                groups[-1].append(n)
            else:
                groups.append([n])
        return groups

    def _read(self, group: Batch) -> Logits:
        """Read one sequence, or one token of each of several in adjacent slots; logits (sequences, vocabulary_size)."""
        slots = [sequence.slot for sequence, _ in group]
        for at in range(0, len(group[0][1]), MOST_TOKENS):
            ids = [token for _, own in group for token in own[at : at + MOST_TOKENS]]
            rows = self._cache.read(slots, [sequence.length for sequence, _ in group], ids)
            for sequence, _ in group:
                sequence.length += len(ids) // len(group)
        return rows

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        check_filled(sequence, upto)
        other = self.new_sequence()
        try:
            self._cache.copy(sequence.slot, other.slot, upto)
        except BaseException:
            self.release(other)
            raise
        other.length = upto
        return other

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        check_filled(sequence, length)
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        check_filled(sequence, 0)
        self._free.add(sequence.slot)
        sequence.slot, sequence.length = -1, 0

    def close(self) -> None:
        """Free the model and the cache; may be called more than once."""
        self._free.clear()
        if hasattr(self, "_cache"):
            del self._cache

    def __enter__(self) -> OnnxRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_signature(folder: Path) -> Signature:
    """Read the signature of a graph, checked to refer to nothing outside its folder."""
    graph = onnx_folder.check_confined(folder)
    if Version(onnxruntime.__version__) < Version("1.26") and any(tensor.external for tensor in graph.tensors):
        onnx_folder.check_hashes(folder)  # these versions follow references out of the folder
    return signature(graph, folder / "model.onnx")


def _load_cache(path: Path, form: Signature, kind: str, context: int, threads: int) -> Cache:
    """Load the graph with an empty cache. Raises ModelError if its kind of cache is not the one in runtime.json."""
    session = onnx_session.session(path, threads)
    found, pruned = probe(session, form, path)
    if found != kind:
        raise ModelError(f"{path}: the graph's cache is {found}, but runtime.json says {kind}; convert it again")
    return CACHES[kind](session, form, Step(session, form, path, context, pruned=pruned), context)


def _check_ids(folder: Path, form: Signature, runtime: Runtime, tokens: int) -> None:
    """Raises ModelError for a token that the graph does not know: reading it would fail, or worse."""
    size = form.vocabulary_size
    if tokens > size:
        message = f"{tokens} tokens, but the graph knows {size}; they are not of one model"
        raise ModelError(f"{folder / 'tokenizer.json'}: {message}: convert it again")
    named = {"bos": [] if runtime.bos is None else [runtime.bos], "end_tokens": runtime.end_tokens}
    for key, ids in named.items():
        if more := [token for token in ids if token >= size]:
            message = f"{key!r} has the token {more[0]}, but the graph knows {size}"
            raise ModelError(f"{folder / 'runtime.json'}: {message}; convert it again")
