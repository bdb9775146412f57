"""The characters that stand for the 256 bytes in byte-level BPE, as defined by GPT-2."""

from __future__ import annotations

__all__ = ["BYTES"]

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)).difference(_PRINTABLE))
BYTES = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
"""byte -> character: printable Latin-1 is itself, the others follow from U+0100."""
