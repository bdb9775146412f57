"""What a process holds: seen while it is held, and the cache against what llama.cpp says that it took."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bioner_edge
from bioner_edge.backends import llama_cpp, native
from bioner_edge.backends.onnx.backend import OnnxRuntime
from bioner_edge.benchmarks.measuring import memory
from bioner_edge.models import gguf_header
from bioner_edge.models.gguf_header import Array

DATA = Path(bioner_edge.__file__).parent / "data"
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
BLOCK = 96 << 20


def held(count: int) -> mmap.mmap:
    """So many bytes of anonymous memory, each page written."""
    block = mmap.mmap(-1, count)
    block.write(b"x" * count)
    return block


@needs_proc
def test_what_is_held_for_a_moment_is_seen() -> None:
    mark = memory.Watermark()
    before, most = mark.anonymous_bytes, time.monotonic() + 60
    assert before is not None and mark.before_bytes is not None and before < mark.before_bytes
    with mark.sample():
        block = mmap.mmap(-1, BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, BLOCK, mmap.PAGESIZE):
            block[at] = 1
        while (mark.anonymous_bytes or 0) < before + BLOCK // 2 and time.monotonic() < most:
            time.sleep(0.001)
        block.close()
    assert (mark.anonymous_bytes or 0) >= before + BLOCK // 2
    assert (memory.peak_bytes() or 0) >= (mark.anonymous_bytes or 0)
    assert mark.before_bytes < mark.before_bytes + BLOCK


def test_the_largest_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [{"RssAnon": 5, "RssFile": 70, "VmHWM": 99}]
    monkeypatch.setattr(memory, "resident", lambda pid: told[-1])
    mark = memory.Watermark()
    assert (mark.before_bytes, mark.anonymous_bytes, mark.file_bytes) == (75, 5, 70)
    for anonymous, mapped in ((9, 10), (6, 80), (7, 20)):
        told.append({"RssAnon": anonymous, "RssFile": mapped, "VmHWM": 100})
        mark.look()
    assert (mark.before_bytes, mark.anonymous_bytes, mark.file_bytes) == (75, 9, 80)
    assert memory.peak_bytes() == 100
    told.append({"RssAnon": 50, "RssFile": 10, "VmHWM": 100})
    with mark.sample():
        pass
    assert mark.anonymous_bytes == 50


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(memory, "resident", lambda pid: {})
    mark = memory.Watermark()
    with mark.sample():
        pass
    assert (mark.before_bytes, mark.anonymous_bytes, mark.file_bytes) == (None, None, None)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory.peak_bytes() == most * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak_bytes() == most


@pytest.mark.parametrize("context", [None, 256, 300, 600])
def test_the_cache_of_llama_cpp(tiny_model: Path, context: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the line that llama.cpp logs, in MiB with two decimals."""
    told: list[str] = []
    heard = native.lib.llama_log_callback(lambda level, text, data: told.append(text.decode(errors="replace")))
    monkeypatch.setattr(llama_cpp, "listen", lambda: native.lib.llama_log_set(heard, ctypes.c_void_p()))
    try:
        for path in (tiny_model, DATA / "chemdis-9m-Q8_0.gguf"):
            told.clear()
            with llama_cpp.LlamaCpp(path, context=context, threads=1) as backend:
                logged = re.search(r"KV buffer size = +([\d.]+) MiB", "".join(told))
                assert logged is not None
                cache = memory.cache_bytes(path, backend.context)
            assert cache is not None and cache / (1 << 20) == pytest.approx(float(logged[1]), abs=0.006)
    finally:
        native.listen()


def test_the_cache_of_onnxruntime() -> None:
    folder = DATA / "chemdis-9m-int8-onnx"
    with OnnxRuntime(folder, threads=1) as backend:
        assert memory.cache_bytes(folder, backend.context) == 640 * 6 * 2 * 4 * 64 * 4


LLAMA = {"llama.block_count": 2, "llama.attention.head_count": 4, "llama.embedding_length": 64}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, 512 * 2 * 4 * (16 + 16) * 2),
        ({"llama.attention.head_count_kv": 1, "llama.attention.key_length": 24}, 512 * 2 * 1 * (24 + 16) * 2),
        ({"llama.attention.head_count_kv": Array("i32", 2)}, None),
        ({"llama.attention.head_count": Array("i32", 2)}, None),
        ({"llama.attention.head_count": 0}, None),
        ({"llama.attention.kv_lora_rank": 8}, None),
        ({"llama.ssm.state_size": 8}, None),
        ({"other.ssm.state_size": 8}, 512 * 2 * 4 * (16 + 16) * 2),
    ],
)
def test_caches_of_other_shapes(told: dict[str, Any], expected: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_header, "check", lambda path: {"general.architecture": "llama", **LLAMA, **told})
    assert memory.cache_bytes(Path("model.gguf"), 300) == expected
