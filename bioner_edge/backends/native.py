"""What every call into llama.cpp's ctypes layer shares: settings that must exist, errors that must be told."""

from __future__ import annotations

import ctypes
import re
from collections import deque
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

__all__ = ["PROMPT_TEMPLATE", "library", "listen", "plain_text", "reason", "set_fields"]

PROMPT_TEMPLATE = b"bioner.chat_template"
"""The key of a template that writes the blanks that a tokenizer would put there; others read the usual one."""

_ERROR = 4  # GGML_LOG_LEVEL_ERROR; llama-cpp-python's own table of the levels is that of an older ggml
_errors: deque[str] = deque(maxlen=8)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log_callback(level: int, text: bytes, data: object) -> None:
    """Keeps the last errors; at module level because llama.cpp keeps the pointer."""
    if level == _ERROR:
        _errors.append(text.decode(errors="replace"))


def library() -> tuple[Path, str]:
    """The folder of llama.cpp's libraries, and what they say that they were built for; see `kernels.choose`."""
    return Path(lib._lib._name).parent, lib.llama_print_system_info().decode()


def listen() -> None:
    """From now on nothing is printed, and errors are kept for `reason`; those before are forgotten."""
    _errors.clear()
    lib.llama_log_set(_log_callback, ctypes.c_void_p())


def reason() -> str:
    """The last error since `listen`, without the function's name: it tells what the exception said."""
    last = " ".join(_errors[-1].split()) if _errors else "no reason given"
    return re.sub(r"^\w+: ", "", last)


def set_fields(struct: Any, **values: object) -> Any:
    """Set fields of a ctypes struct, which takes a name that it does not have without a word. Raises RuntimeError."""
    names = {name for name, *_ in struct._fields_}
    if unknown := values.keys() - names:
        raise RuntimeError(
            f"llama-cpp-python's {type(struct).__name__} has no {', '.join(sorted(unknown))}; install 0.3.36"
        )
    for name, value in values.items():
        setattr(struct, name, value)
    return struct


def plain_text() -> Any:
    """An override for loading: no blank before a text.

    What is fed must spell the document, byte for byte; the blank that SentencePiece tokenizers put there would stand in
    every answer. The array ends with an empty row.
    """
    rows = (lib.llama_model_kv_override * 2)()
    rows[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    rows[0].key = b"tokenizer.ggml.add_space_prefix"
    value: Any = rows[0].value  # a union
    value.val_bool = False
    return rows
