"""Inference by llama.cpp, through the ctypes layer of llama-cpp-python, which is pinned exactly.

Its structs change between patch versions, and ctypes silently accepts a field that no longer exists, so each setting
goes through `set_fields`, which rejects unknown names. Every setting that matters is explicit; the library's defaults
(4 threads on any machine, an automatic load mode) are never relied on.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from bioner_edge.backends import adapter_file
from bioner_edge.backends.contract import Batch, CachedSequence, ContextFull, Logits, check_batch, check_filled
from bioner_edge.backends.kernels import PLAIN, choose, settle
from bioner_edge.backends.llama_batch import TokenBatch, split
from bioner_edge.backends.native import PROMPT_TEMPLATE, VERSION, lib, library, listen, plain_text, reason, set_fields
from bioner_edge.errors import ModelError
from bioner_edge.hardware.threads import cores

__all__ = ["LlamaCpp"]

_CACHE_TYPES = {"f16": 1, "f32": 0}  # GGML_TYPE_*
_SLOTS = 16  # sequences that may live at once
_BATCH = 512  # tokens read in one step
_MOST_CONTEXT = 2048  # by default: sentences and abstracts need no more, and the cache grows with it


class LlamaCpp:
    """A GGUF file loaded for CPU inference.

    `context` is in tokens, by default the model's training context, at most 2048. `cache` is the type of the KV cache:
    "f32" (without flash attention) is for parity with transformers. `adapter` is a GGUF LoRA file, applied in each
    step. `kernels` is one of `kernels.KERNELS`, by default the fastest that work here. Raises ModelError if llama.cpp
    cannot load a file.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int | None = None,
        threads: int | None = None,
        cache: str = "f16",
        adapter: Path | None = None,
        kernels: str | None = None,
    ) -> None:
        listen()
        lib.llama_backend_init()
        self.threads = threads or cores()
        self.kernels = settle(kernels or choose(path, *library()))
        self.runtime = f"llama-cpp-python {VERSION}, {self.kernels} kernels"
        self._model = _load_model(path, repacked=self.kernels != PLAIN)
        lora = _load_adapter(self._model, adapter, path) if adapter else None
        self._vocab = lib.llama_model_get_vocab(self._model)
        context = context or min(lib.llama_model_n_ctx_train(self._model), _MOST_CONTEXT)
        exact = cache == "f32"
        settings = set_fields(
            lib.llama_context_default_params(),
            n_ctx=context,
            n_batch=_BATCH,
            n_ubatch=_BATCH,
            n_seq_max=_SLOTS,
            n_threads=self.threads,
            n_threads_batch=self.threads,
            type_k=_CACHE_TYPES[cache],
            type_v=_CACHE_TYPES[cache],
            flash_attn_type=lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if exact else lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
            embeddings=False,
            offload_kqv=False,
            op_offload=False,
            swa_full=True,  # else a truncated cache of a sliding-window model is wrong
            kv_unified=True,  # else copying part of a sequence to another aborts the process
            no_perf=True,
        )
        self._context = lib.llama_init_from_model(self._model, settings)
        if not self._context:
            lib.llama_model_free(self._model)
            raise ModelError(f"{path}: llama.cpp cannot make a context of {context} tokens; is there memory for it?")
        if lora:
            one = (ctypes.c_float * 1)(1.0)
            if lib.llama_set_adapters_lora(self._context, (lib.llama_adapter_lora_p_ctypes * 1)(lora), 1, one):
                lib.llama_free(self._context)
                lib.llama_model_free(self._model)
                raise ModelError(f"{adapter}: llama.cpp does not take it: {reason()}; merge the adapter instead")
        self._memory = lib.llama_get_memory(self._context)
        self._step = min(_BATCH, lib.llama_n_batch(self._context))  # a small context lowers it; more aborts the process
        self._tokens = TokenBatch(self._step)
        self._free = list(range(_SLOTS - 1, -1, -1))
        self.context: int = context
        self._describe()

    def _describe(self) -> None:
        """Set the attributes that come from the vocabulary, which needs no weights."""
        self.vocabulary_size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.end_tokens = frozenset(t for t in range(self.vocabulary_size) if lib.llama_vocab_is_eog(self._vocab, t))
        bos = lib.llama_vocab_bos(self._vocab)
        self.template_tokens: Mapping[str, str] = {
            "bos_token": self._name(bos),
            "eos_token": self._name(lib.llama_vocab_eos(self._vocab)),
        }
        self.bos: int | None = bos if bos >= 0 and lib.llama_vocab_get_add_bos(self._vocab) else None
        template = self._text(PROMPT_TEMPLATE) or lib.llama_model_chat_template(self._model, None)
        self.chat_template: str | None = template.decode() if template else None

    def _text(self, key: bytes) -> bytes | None:
        """A string of the file's metadata, or None if the key is missing."""
        if (size := lib.llama_model_meta_val_str(self._model, key, None, 0)) < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        lib.llama_model_meta_val_str(self._model, key, buffer, size + 1)
        return buffer.value

    def _name(self, token: int) -> str:
        """A control token as a template writes it; empty if there is none, for which llama.cpp returns -1 or any id."""
        known = token >= 0 and lib.llama_vocab_is_control(self._vocab, token)
        return lib.llama_vocab_get_text(self._vocab, token).decode() if known else ""

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        room = len(text) + 2  # no token is shorter than a byte
        ids = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocab, text, len(text), ids, room, False, special)
        if count < 0:
            raise ModelError(f"the model's vocabulary cannot spell this text: {-count} tokens for {len(text)} bytes")
        return ids[:count]

    def piece(self, token: int) -> bytes | None:
        if lib.llama_vocab_is_control(self._vocab, token) or token in self.end_tokens:
            return None
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count] or None
            size = -count

    def new_sequence(self) -> CachedSequence:
        if not self._free:
            raise RuntimeError(f"all {_SLOTS} sequences are in use; release one")
        return CachedSequence(self._free.pop())

    def eval(self, sequence: CachedSequence, ids: Sequence[int]) -> Logits:
        return self.eval_batch([(sequence, ids)])[0]

    def eval_batch(self, batch: Batch) -> list[Logits]:
        check_batch(batch)
        before = [sequence.length for sequence, _ in batch]
        logits: list[Logits] = []
        kept = 0
        try:
            for part in split(batch, self._step):
                logits[kept:] = [row.copy() for row in logits[kept:]]  # the next step overwrites them
                kept = len(logits)
                rows = self._tokens.fill(part)
                if status := lib.llama_decode(self._context, self._tokens.struct):
                    raise self._failure(status, batch, before)
                for sequence, ids, _ in part:
                    sequence.length += len(ids)
                logits += [self._row(row) for row in rows]
        except BaseException:
            for (sequence, _), length in zip(batch, before, strict=True):
                self.truncate(sequence, length)
            raise
        return logits

    def _row(self, row: int) -> Logits:
        """The logits after one token of the last step: a view of llama.cpp's own memory."""
        logits = lib.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(logits, shape=(self.vocabulary_size,))

    def _failure(self, status: int, batch: Batch, before: Sequence[int]) -> Exception:
        if status != 1:
            return ModelError(f"llama.cpp failed to decode (status {status})")
        tokens = sum(len(ids) for _, ids in batch)
        where = f"after {before[0]}" if len(batch) == 1 else f"of {len(batch)} sequences"
        return ContextFull(f"no room for {tokens} tokens {where} in a context of {self.context}")

    def fork(self, sequence: CachedSequence, upto: int) -> CachedSequence:
        check_filled(sequence, upto)
        other = self.new_sequence()
        lib.llama_memory_seq_cp(self._memory, sequence.slot, other.slot, 0, upto)
        other.length = upto
        return other

    def truncate(self, sequence: CachedSequence, length: int) -> None:
        check_filled(sequence, length)
        lib.llama_memory_seq_rm(self._memory, sequence.slot, length, -1)
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        self.truncate(sequence, 0)
        self._free.append(sequence.slot)
        sequence.slot = -1

    def close(self) -> None:
        if self._context:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_model(path: Path, *, repacked: bool) -> Any:
    """Load the weights of a file, `repacked` for the processor's kernels or as they are. Raises ModelError."""
    settings = set_fields(
        lib.llama_model_default_params(),
        n_gpu_layers=0,
        load_mode=lib.LLAMA_LOAD_MODE_NONE,  # mmap beside repacked weights holds them twice
        check_tensors=False,
        use_extra_bufts=repacked,
        kv_overrides=plain_text(),
    )
    model = lib.llama_model_load_from_file(os.fsencode(path), settings)
    if not model:
        raise ModelError(f"{path}: llama.cpp cannot load it; is it a language model in GGUF, complete?")
    return model


def _load_adapter(model: Any, path: Path, base: Path) -> Any:
    """Load a LoRA file for `model`, which owns it; call it before a context is created.

    Frees the model and raises ModelError if the file is not a LoRA adapter or belongs to another model.
    """
    try:
        adapter_file.check(path)
        listen()
        if not (lora := lib.llama_adapter_lora_init(model, os.fsencode(path))):
            message = f"cannot be used with {base.name}: {reason()}"
            raise ModelError(f"{path}: {message}; take the model that the adapter was tuned on")
    except BaseException:
        lib.llama_model_free(model)
        raise
    return lora
