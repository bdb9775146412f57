"""Code shared by calls into llama.cpp's ctypes layer: checked settings and captured error messages.

`lib` is that layer. Import it from here: if it cannot be loaded, this import raises ModelError.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from bioner_edge.errors import ModelError, printable

try:
    import llama_cpp
    import llama_cpp.llama_cpp as lib
except (OSError, RuntimeError) as error:  # its library, or one that it depends on, is missing
    _why = printable(" ".join(re.sub(r"^Failed to load shared library '.*?': ", "", str(error)).split()))
    _remedy = "install the library that is missing (libgomp.so.1: apt install libgomp1), or llama-cpp-python again"
    raise ModelError(
        f"llama.cpp is installed, but cannot be loaded: {_why}; {_remedy}, or name an ONNX model"
    ) from None

__all__ = ["PROMPT_TEMPLATE", "VERSION", "layouts", "lib", "library", "listen", "plain_text", "reason", "set_fields"]

PROMPT_TEMPLATE = b"bioner.chat_template"
"""The key of a chat template that itself writes the blanks a tokenizer would add; other programs read the usual one."""

VERSION: str = llama_cpp.__version__

_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_ERROR = 4  # GGML_LOG_LEVEL_ERROR; llama-cpp-python's own table is that of an older ggml
_errors: deque[str] = deque(maxlen=8)


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log_callback(level: int, text: bytes, data: object) -> None:
    """Keep the last errors. At module level because llama.cpp keeps the pointer."""
    if level == _ERROR:
        _errors.append(text.decode(errors="replace"))


def library() -> tuple[Path, str]:
    """The folder of llama.cpp's libraries and their `llama_print_system_info`; see `kernels.choose`."""
    return Path(lib._lib._name).parent, lib.llama_print_system_info().decode()


def layouts() -> list[str]:
    """The layouts that llama.cpp may repack weights into, such as "AMX" and "CPU_REPACK".

    llama.cpp builds the list at the first request, here or when a model is loaded, and keeps it; see `amx`.
    """
    ggml = lib._lib
    functions = ("dev_by_type", "dev_backend_reg", "reg_get_proc_address", "buft_name")
    by_type, registry, address, name = (getattr(ggml, f"ggml_backend_{function}") for function in functions)
    by_type.argtypes, by_type.restype = [ctypes.c_int], ctypes.c_void_p
    registry.argtypes, registry.restype = [ctypes.c_void_p], ctypes.c_void_p
    address.argtypes, address.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
    name.argtypes, name.restype = [ctypes.c_void_p], ctypes.c_char_p
    device = by_type(_CPU)
    found = address(registry(device), b"ggml_backend_dev_get_extra_bufts")
    if not found:  # a build that has none
        return []
    listed = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(found)(device)
    return [name(kind).decode() for kind in takewhile(bool, map(listed.__getitem__, count()))]


def listen() -> None:
    """Silence llama.cpp's log and keep errors for `reason`; earlier ones are dropped."""
    _errors.clear()
    lib.llama_log_set(_log_callback, ctypes.c_void_p())


def reason() -> str:
    """The last error since `listen`, without the function's name: what the C++ exception said."""
    last = " ".join(_errors[-1].split()) if _errors else "no reason given"
    return re.sub(r"^\w+: ", "", last)


def set_fields(struct: Any, **values: object) -> Any:
    """Set fields of a ctypes struct. Raises RuntimeError for unknown names, which ctypes would silently accept."""
    names = {name for name, *_ in struct._fields_}
    if unknown := values.keys() - names:
        raise RuntimeError(
            f"llama-cpp-python's {type(struct).__name__} has no {', '.join(sorted(unknown))}; install 0.3.36"
        )
    for name, value in values.items():
        setattr(struct, name, value)
    return struct


def plain_text() -> Any:
    """A metadata override for loading: no blank before a text.

    Tokens fed must spell the document, byte for byte; the blank that SentencePiece tokenizers prepend would end up in
    every answer. The array ends with an empty row.
    """
    rows = (lib.llama_model_kv_override * 2)()
    rows[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    rows[0].key = b"tokenizer.ggml.add_space_prefix"
    value: Any = rows[0].value  # a union
    value.val_bool = False
    return rows
