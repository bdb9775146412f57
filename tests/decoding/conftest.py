"""llama.cpp's own grammar engine, asked byte by byte: the oracle for our reading of GBNF."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Oracle:
    """A grammar loaded there. It writes NUL never, and invalid UTF-8 where ours does not: neither is asked about."""

    lib: Any
    vocab: Any
    sampler: Any
    bytes_: dict[int, int]
    tokens: int
    eos: int
    written: bytearray = field(default_factory=bytearray)

    def allowed(self, tokens: list[int]) -> set[int]:
        """Those of `tokens` that may come next."""
        data = (self.lib.llama_token_data * len(tokens))(*((token, 0.0, 0.0) for token in tokens))
        array = self.lib.llama_token_data_array(data, len(tokens), -1, False)
        self.lib.llama_sampler_apply(self.sampler, ctypes.byref(array))
        return {candidate.id for candidate in data if candidate.logit > -1e30}

    def options(self) -> set[int]:
        """The bytes that may come next."""
        allowed = self.allowed(list(self.bytes_.values()))
        return {byte for byte, token in self.bytes_.items() if token in allowed}

    def accepts(self) -> bool:
        return bool(self.allowed([self.eos]))

    def step(self, byte: int) -> bool:
        """Write a byte, where it is allowed; accepting another one would end the process."""
        token = self.bytes_[byte]
        if not self.allowed([token]):
            return False
        self.lib.llama_sampler_accept(self.sampler, token)
        self.written.append(byte)
        return True

    def accepts_all(self, data: bytes) -> bool:
        self.lib.llama_sampler_reset(self.sampler)
        return all(self.step(byte) for byte in data) and self.accepts()


@pytest.fixture(scope="session")
def oracle(tiny_model: Path) -> Iterator[Callable[[str], Oracle | None]]:
    """A function: grammar -> the oracle for it, None where llama.cpp refuses it."""
    import llama_cpp.llama_cpp as lib

    quiet = lib.llama_log_callback(lambda level, text, data: None)
    lib.llama_log_set(quiet, ctypes.c_void_p())
    settings = lib.llama_model_default_params()
    settings.vocab_only = True
    model = lib.llama_model_load_from_file(str(tiny_model).encode(), settings)
    vocab = lib.llama_model_get_vocab(model)
    tokens = lib.llama_vocab_n_tokens(vocab)
    pieces = {token: _piece(lib, vocab, token) for token in range(tokens)}
    bytes_ = {piece[0]: token for token, piece in pieces.items() if len(piece) == 1}
    assert sorted(bytes_) == list(range(256))
    samplers = []

    def load(grammar: str) -> Oracle | None:
        sampler = lib.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        if not sampler:
            return None
        samplers.append(sampler)
        return Oracle(lib, vocab, sampler, bytes_, tokens, lib.llama_vocab_eos(vocab))

    yield load
    for sampler in samplers:
        lib.llama_sampler_free(sampler)
    lib.llama_model_free(model)


def _piece(lib: Any, vocab: Any, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    size = lib.llama_token_to_piece(vocab, token, buffer, 64, 0, False)
    return buffer.raw[:size]
