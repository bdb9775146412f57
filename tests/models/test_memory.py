"""What a model needs against what it took; what there is, by what the system says; and the refusal between them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.errors import ModelError
from bioner_edge.models import memory
from bioner_edge.models.manifest import Manifest, digest, digests
from bioner_edge.models.memory import available, estimate, refuse_larger

BUNDLED = Path(memory.__file__).parents[1] / "data" / "chemdis-9m-Q8_0.gguf"

# --- What is needed

_MEASURE = """
import sys
from pathlib import Path
import numpy

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

path = Path(sys.argv[1])
if path.is_dir():
    import tokenizers
    from bioner_edge.backends.onnx.backend import OnnxRuntime as Backend
else:
    from bioner_edge.backends.llama_cpp import LlamaCpp as Backend
before = status("VmRSS")
model = Backend(path, threads=1)
sequence = model.new_sequence()
while sequence.length < model.context - 20:
    model.eval(sequence, [7 + n % 200 for n in range(min(256, model.context - 20 - sequence.length))])
other = model.fork(sequence, sequence.length - 10)
for token in range(8):
    model.eval(other, [token + 7])
print(before, status("VmHWM"))
"""


def measured(path: Path) -> tuple[int, int]:
    """(peak RSS of a process that ran the model, what of it the model took)."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak RSS is told by Linux only")
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, peak = map(int, done.stdout.split())
    return peak, peak - before


def test_the_bundled_model() -> None:
    pytest.importorskip("llama_cpp")
    peak, own = measured(BUNDLED)
    assert 0.9 * own < estimate(BUNDLED) < 1.5 * own, (estimate(BUNDLED), own, peak)


WORDS, WIDTH, FEED, LAYERS, HEADS = 20_000, 512, 2048, 6, 8


def onnx_model(folder: Path, bits: int | None) -> Path:
    """A graph with the inputs, outputs and matrices of a language model of 45M parameters, its embedding tied; what
    would be attention is a product of queries and keys that the answer does not depend on much."""
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    node, size = onnx.helper.make_node, WIDTH // HEADS
    nodes: list[Any] = []
    tensors: list[Any] = []
    rng = np.random.default_rng(0)

    def keep(name: str, array: Any) -> str:
        tensors.append(onnx.numpy_helper.from_array(array, name))
        return name

    def blocks(name: str, rows: int, columns: int) -> list[str]:
        count = columns // 32
        if f"{name}.q" not in {t.name for t in tensors}:
            keep(f"{name}.q", rng.integers(0, 255, (rows, count, 4 * (bits or 8))).astype(np.uint8))
            keep(f"{name}.s", np.full((rows, count), 1e-3, np.float32))
        return [f"{name}.q", f"{name}.s"]

    def multiply(x: str, name: str, rows: int, columns: int) -> str:
        y = f"{name}.out"
        if bits is None:
            weights = rng.standard_normal((columns, rows), dtype=np.float32) * np.float32(0.02)
            nodes.append(node("MatMul", [x, keep(name, weights)], [y]))
        else:
            made = {"K": columns, "N": rows, "bits": bits, "block_size": 32, "accuracy_level": 4}
            nodes.append(node("MatMulNBits", [x, *blocks(name, rows, columns)], [y], domain="com.microsoft", **made))
        return y

    if bits is None:
        table = rng.standard_normal((WORDS, WIDTH), dtype=np.float32) * np.float32(0.02)
        nodes.append(node("Gather", [keep("table", table), "input_ids"], ["x0"]))
    else:
        data, scales = blocks("table", WORDS, WIDTH)
        nodes.append(node("Reshape", [data, keep("flat", np.array([WORDS, -1], np.int64))], ["rows"]))
        made = {"bits": bits, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        nodes.append(
            node("GatherBlockQuantized", ["rows", "input_ids", scales], ["x0"], domain="com.microsoft", **made)
        )
    keep("split", np.array([0, -1, HEADS, size], np.int64))
    keep("joined", np.array([0, -1, WIDTH], np.int64))
    x = "x0"
    value = onnx.helper.make_tensor_value_info
    ids = [value("input_ids", 7, ["B", "n"]), value("attention_mask", 7, ["B", "total"])]
    pasts, presents = [], []
    for layer in range(LAYERS):
        q, k, v = (multiply(x, f"{layer}.{part}", WIDTH, WIDTH) for part in "qkv")
        for name in (q, k, v):
            nodes.append(node("Reshape", [name, "split"], [f"{name}.r"]))
            nodes.append(node("Transpose", [f"{name}.r"], [f"{name}.t"], perm=[0, 2, 1, 3]))
        for name, part in ((k, "key"), (v, "value")):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            pasts.append(value(past, 1, ["B", HEADS, "past", size]))
            presents.append(value(present, 1, ["B", HEADS, "past + n", size]))
            nodes.append(node("Concat", [past, f"{name}.t"], [present], axis=2))
        nodes.append(node("Transpose", [f"present.{layer}.key"], [f"{layer}.kt"], perm=[0, 1, 3, 2]))
        nodes.append(node("MatMul", [f"{q}.t", f"{layer}.kt"], [f"{layer}.scores"]))
        nodes.append(node("Softmax", [f"{layer}.scores"], [f"{layer}.soft"]))
        nodes.append(node("MatMul", [f"{layer}.soft", f"present.{layer}.value"], [f"{layer}.a"]))
        nodes.append(node("Transpose", [f"{layer}.a"], [f"{layer}.b"], perm=[0, 2, 1, 3]))
        nodes.append(node("Reshape", [f"{layer}.b", "joined"], [f"{layer}.c"]))
        up = multiply(multiply(f"{layer}.c", f"{layer}.o", WIDTH, WIDTH), f"{layer}.up", FEED, WIDTH)
        nodes.append(node("Relu", [up], [f"{layer}.act"]))
        down = multiply(f"{layer}.act", f"{layer}.down", WIDTH, FEED)
        nodes.append(node("Add", [x, down], [f"x{layer + 1}"]))
        x = f"x{layer + 1}"
    keep("last", np.array([-1], np.int64))
    nodes.append(node("Gather", [x, "last"], ["final"], axis=1))
    if bits is None:
        nodes.append(node("FusedMatMul", ["final", "table"], ["logits"], domain="com.microsoft", transB=1))
    else:
        multiply("final", "table", WORDS, WIDTH)
        nodes[-1].output[0] = "logits"
    outputs = [value("logits", 1, ["B", 1, WORDS]), *presents]
    graph = onnx.helper.make_graph(nodes, "g", [*ids, *pasts], outputs, tensors)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    folder.mkdir()
    onnx.save(made, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    return sealed(folder)


def sealed(folder: Path) -> Path:
    """The rest of a model's folder: a tokenizer of bytes, and what is said of the model."""
    letters = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters += range(256, 512 - len(letters))
    vocabulary = {chr(letter): n for n, letter in enumerate(letters)} | {"<end>": 256}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 256, "content": "<end>", "special": True, "normalized": False}
    record = {
        "version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "normalizer": None,
        "added_tokens": [{**end, "single_word": False, "lstrip": False, "rstrip": False}],
        "pre_tokenizer": split, "decoder": split, "post_processor": None, "truncation": None, "padding": None,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(record))
    told = {"context": 1024, "bos": None, "end_tokens": [256], "chat_template": None, "cache": "grown"}
    (folder / "runtime.json").write_text(json.dumps({**told, "bos_token": "", "eos_token": ""}))
    Manifest(
        formats=(), labels=(), unit="sentence", license="MIT", sha256=digest(folder), level="F32", bits_per_weight=32.0,
        tensor_mix={}, sources={}, versions={}, files=digests(folder),
    ).save(folder / "manifest.json")  # fmt: skip
    return folder


@pytest.mark.thorough(but=("8",))
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_onnx_models(tmp_path: Path, bits: int | None) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
    path = onnx_model(tmp_path / "model", bits)
    peak, own = measured(path)
    assert 0.9 * own < estimate(path) < 1.5 * own, (estimate(path), own, peak)


def test_a_longer_context_needs_more(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for path in (BUNDLED, onnx_model(tmp_path / "model", 8)):
        assert estimate(path, 100) < estimate(path) < estimate(path, 100_000)
    size = 2 * WIDTH * LAYERS * 4  # of a position, in a cache
    more = 3 * size + 3 * 4 * 256 * HEADS  # the caches; and the scores of a step
    assert estimate(path, 2000) - estimate(path, 1000) == 1000 * more


# --- What there is


def system(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    """The files of a machine, those of the kernel and of its control groups."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return {"proc": folder / "proc", "groups": folder / "groups"}


MEMINFO = "MemTotal:       24000000 kB\nMemFree:         2000000 kB\nMemAvailable:    8000000 kB\n"
FREE = 8_000_000 * 1024
SECOND = {"proc/self/cgroup": "0::/user.slice/run.scope\n"}
GROUP = "groups/user.slice/run.scope/"
OLDER = "groups/memory/docker/abc/"
FIRST = {"proc/self/cgroup": "12:cpu,cpuacct:/a\n7:memory:/docker/abc\n1:name=systemd:/x:y\n"}
GROUPS: dict[str, tuple[dict[str, str], int | None]] = {
    "no groups": ({}, None),
    "no limit": (SECOND | {GROUP + "memory.max": "max\n", GROUP + "memory.current": "5"}, None),
    "a limit": (SECOND | {GROUP + "memory.max": "1000\n", GROUP + "memory.current": "300\n"}, 700),
    "cached files": (
        SECOND
        | {GROUP + "memory.max": "1000", GROUP + "memory.current": "900"}
        | {GROUP + "memory.stat": "anon 5\ninactive_file 400\n"},
        500,
    ),
    "more used than allowed": (SECOND | {GROUP + "memory.max": "1000", GROUP + "memory.current": "3000"}, 0),
    "the limit of the group above": (
        SECOND
        | {GROUP + "memory.max": "5000", GROUP + "memory.current": "300"}
        | {"groups/user.slice/memory.max": "2000", "groups/user.slice/memory.current": "800"},
        1200,
    ),
    "in a container": (
        {"proc/self/cgroup": "0::/\n", "groups/memory.max": "2000", "groups/memory.current": "500"}, 1500
    ),
    "a path of the host": (
        {"proc/self/cgroup": "0::/../../host/abc\n", "groups/memory.max": "2000", "groups/memory.current": "500"}, 1500
    ),
    "version 1": (
        FIRST
        | {OLDER + "memory.limit_in_bytes": "4000", OLDER + "memory.usage_in_bytes": "900"}
        | {OLDER + "memory.stat": "inactive_file 1\ntotal_inactive_file 300\n"},
        3400,
    ),
    "version 1 in a container": (
        FIRST | {"groups/memory/memory.limit_in_bytes": "4000", "groups/memory/memory.usage_in_bytes": "900"}, 3100
    ),
    "version 1 without a limit": (
        FIRST
        | {"groups/memory/memory.limit_in_bytes": "9223372036854771712", "groups/memory/memory.usage_in_bytes": "900"},
        None,
    ),
    "rubbish": (
        {"proc/self/cgroup": "x\n\n0:\n::\n0::/a\n", "groups/a/memory.max": "much", "groups/a/memory.current": "1"},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "left"), GROUPS.values(), ids=GROUPS.keys())
def test_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int | None
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert available(**system(tmp_path, files)) == left
    assert available(**system(tmp_path, files | {"proc/meminfo": MEMINFO})) == (FREE if left is None else left)


def test_limits_of_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10_000_000, 20_000_000))
    places = system(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/statm": "1000 500 200 1 0 300 0\n"})
    assert available(**places) == 10_000_000 - 1000 * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    assert available(**places) == 0


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for meminfo in ("", "MemAvailable:\n", "MemTotal: 5 kB\n"):
        assert available(**system(tmp_path, {"proc/meminfo": meminfo})) is None
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert available(**system(tmp_path, {"proc/meminfo": MEMINFO})) == FREE


def test_this_system() -> None:
    """Under a limit that is set for a process, less is left than without, and less than the limit."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from bioner_edge.models.memory import available\n"
        "resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); print(available())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(1 << 30)], capture_output=True, text=True)
    assert done.returncode == 0 and 1 << 28 < int(done.stdout) < 1 << 30, done.stderr
    free = available()
    assert free is None or 0 < free < 1 << 50


# --- The refusal


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = estimate(BUNDLED)
    monkeypatch.setattr(memory, "available", lambda: asked)
    refuse_larger(BUNDLED)
    with pytest.raises(ModelError, match=r"needs about 3\.\d GB of memory, .* are free"):
        refuse_larger(BUNDLED, context=500_000)
    refuse_larger(BUNDLED, True, 500_000)
    monkeypatch.setattr(memory, "available", lambda: asked - 1)
    with pytest.raises(ModelError) as caught:
        refuse_larger(BUNDLED)
    megabytes = r"\d+ MB"
    told = rf"needs about {megabytes} of memory, {megabytes} are free; use a smaller level, or --force to try"
    assert re.fullmatch(rf"{re.escape(str(BUNDLED))}: {told}", str(caught.value))
    monkeypatch.setattr(memory, "available", lambda: None)
    refuse_larger(BUNDLED)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in it"):
        estimate(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="damaged GGUF"):
        refuse_larger(tmp_path / "a.gguf")
