"""The characters that stand for the 256 bytes in byte-level BPE, as GPT-2 has them and all after it."""

from __future__ import annotations

__all__ = ["BYTES"]

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)).difference(_PRINTABLE))
BYTES = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
"""Printable Latin-1 for itself, then 256 and on."""
