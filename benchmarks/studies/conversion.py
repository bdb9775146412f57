"""Time and memory of conversions, for models of common sizes.

    python -m bioner_edge.benchmarks.studies.conversion [--shapes 0.5B,1.5B] [--levels Q8_0,Q4_K_M]
        [--exporters builder,optimum] [--work FOLDER]

Random weights in the shapes of Qwen2.5 (bfloat16, the embedding tied, 151,936 tokens) and a LoRA adapter of rank 16 on
every linear layer are written to a temporary folder. Each step then runs once, in its own process, without
verification, which needs torch and as much memory as the model has in float32:

    merge           base and adapter to safetensors shards, float32: `convert --keep-merged` does it on the way
    onnx builder …  the merged model to a graph in float32, by each of --exporters: `convert --to onnx` starts there
    convert         base and adapter to the F32 GGUF from which every level is made: `convert --quant F32 --no-verify`
    Q8_0 …          the F32 GGUF to that level, by llama.cpp

An exporter needs the extra onnx or optimum, and may take minutes; by default none is run.

Prints a Markdown table: seconds, peak anonymous and file-backed RSS of the process (sampled every 10 ms; Linux only),
and the size of the output. File-backed RSS is memory that the kernel can reclaim at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bioner_edge.backends.byte_level import BYTES
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.convert.onnx.child import REFUSED
from bioner_edge.convert.onnx.export import ALONE, EXPORTERS, require
from bioner_edge.errors import BionerError, UsageError, unknown_name
from bioner_edge.hardware.threads import cores

__all__ = ["COMMON", "SHAPES", "Row", "linears", "main", "write_adapter", "write_base", "write_tokenizer"]

# The relevant values of config.json for Qwen2.5's sizes.
SHAPES: dict[str, dict[str, int]] = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
COMMON: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 257,
}
_LIBRARIES = ("bioner-edge", "gguf", "llama-cpp-python", "numpy")
_RANK = 16
_MERGE = """
import sys
from pathlib import Path
from bioner_edge.convert.merging.adapter import Adapter
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.convert.merging.merge import Merged, save
base, adapter, out = map(Path, sys.argv[1:])
save(Merged(Checkpoint(base), Adapter(adapter)), out)
"""
_QUANTIZE = """
import sys
from pathlib import Path
from bioner_edge.convert.gguf.quantize import quantize
quantize(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One step: wall time, peak RSS of its process, and the size of its output."""

    shape: str
    step: str
    seconds: float
    anonymous_bytes: int
    file_bytes: int
    written_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a step fails."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.conversion", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shapes", default="0.5B,1.5B", help="comma-separated [default: 0.5B,1.5B]")
    parser.add_argument("--levels", default="F16,Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_0,IQ4_XS", help="comma-separated")
    parser.add_argument("--exporters", default="", help="comma-separated: builder, optimum [default: none]")
    parser.add_argument("--work", type=Path, help="where there is room for 20 GB [default: the temporary folder]")
    asked = parser.parse_args(arguments)
    try:
        exporters = [require(name, *COMMON["architectures"]) for name in asked.exporters.split(",") if name]
        libraries = dict.fromkeys([*_LIBRARIES, *(library for name in exporters for library in EXPORTERS[name].needs)])
        print("\n".join(f"- {line}" for line in machine.describe([*libraries])))
        print(
            "\n| shape | step | s | peak anonymous RSS, MB | file-backed, MB | written, MB |\n|---|---|---|---|---|---|"
        )
        for shape in asked.shapes.split(","):
            if shape not in SHAPES:
                raise UsageError(unknown_name("shape", shape, SHAPES))
            with tempfile.TemporaryDirectory(dir=asked.work) as folder:
                for row in _measure(shape, asked.levels.split(","), exporters, Path(folder)):
                    sizes = (row.anonymous_bytes, row.file_bytes, row.written_bytes)
                    shown = " | ".join(f"{size / 1e6:,.0f}" for size in sizes)
                    print(f"| {row.shape} | {row.step} | {row.seconds:.1f} | {shown} |", flush=True)
    except (BionerError, subprocess.CalledProcessError) as error:
        print(f"conversion: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(shape: str, levels: Sequence[str], exporters: Sequence[str], work: Path) -> Iterator[Row]:
    """The steps of one shape; intermediate files are removed once no later step reads them."""
    base, adapter, merged, out = work / "base", work / "adapter", work / "merged", work / "out"
    config = {**COMMON, **SHAPES[shape]}
    write_base(base, config)
    write_adapter(adapter, config)

    yield _run(shape, "merge", [sys.executable, "-c", _MERGE, base, adapter, merged], merged)
    for exporter in exporters:
        yield _export(shape, exporter, merged, work / exporter)
        shutil.rmtree(work / exporter)
    shutil.rmtree(merged)
    command = [Path(sys.executable).with_name("bioner-edge"), "convert", "--base", base, "--adapter", adapter]
    command += ["--out", out, "--quant", "F32", "--no-verify", "--quiet"]
    yield _run(shape, "convert", command, out)
    f32 = next(out.glob("*.gguf"))
    for level in levels:
        path = work / f"{level}.gguf"
        yield _run(shape, level, [sys.executable, "-c", _QUANTIZE, f32, path, level], path)
        path.unlink()


def _export(shape: str, exporter: str, merged: Path, out: Path) -> Row:
    """Run the process in which `convert --to onnx` exports; its output is discarded, its reason for a failure is
    not."""
    out.mkdir()
    command = [sys.executable, "-P", "-m", "bioner_edge.convert.onnx.child", exporter, merged, out, cores()]
    try:
        return _run(shape, f"onnx {exporter}", command, out, env={**os.environ, **ALONE}, stderr=subprocess.DEVNULL)
    except UsageError:
        if (out / REFUSED).is_file():
            raise UsageError((out / REFUSED).read_text("utf-8")) from None
        raise


def _run(shape: str, step: str, command: Sequence[object], product: Path, **settings: Any) -> Row:
    """One step; `settings` are those of `subprocess.Popen`. Raises UsageError where it fails."""
    started = time.monotonic()
    peaks = {"RssAnon": 0, "RssFile": 0}
    given = [str(part) for part in command]
    # an exporter exits when its standard input closes
    with subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **settings) as process:
        while process.poll() is None:
            now = machine.resident(process.pid)
            peaks = {key: max(peak, now.get(key, 0)) for key, peak in peaks.items()}
            time.sleep(0.01)
        seconds = time.monotonic() - started
    if process.returncode:
        raise UsageError(f"{shape} {step}: exit code {process.returncode}")
    files = product.iterdir() if product.is_dir() else [product]
    return Row(shape, step, seconds, peaks["RssAnon"], peaks["RssFile"], sum(file.stat().st_size for file in files))


# --- A checkpoint and an adapter of random weights, as transformers and peft save them


def linears(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The linear layers of one block: name -> (outputs, inputs)."""
    hidden, feed = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    attention = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
    mlp = {"gate": (feed, hidden), "up": (feed, hidden), "down": (hidden, feed)}
    return {f"self_attn.{name}_proj": shape for name, shape in attention.items()} | {
        f"mlp.{name}_proj": shape for name, shape in mlp.items()
    }


def write_base(folder: Path, config: Mapping[str, Any]) -> None:
    """A bfloat16 checkpoint with a tokenizer of the 256 bytes; the other rows of the embedding are padding."""
    hidden = config["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in linears(config).items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
            if name.startswith("self_attn") and "o_proj" not in name:
                shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_tokenizer(folder)
    _write_safetensors(folder / "model.safetensors", shapes, "BF16")


def write_adapter(folder: Path, config: Mapping[str, Any]) -> None:
    """A float32 LoRA adapter on every linear layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in linears(config).items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            shapes[f"{prefix}.lora_A.weight"] = (_RANK, inputs)
            shapes[f"{prefix}.lora_B.weight"] = (outputs, _RANK)
    modules = sorted(name.split(".")[1] for name in linears(config))
    record = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK, "target_modules": modules}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(record), "utf-8")
    _write_safetensors(folder / "adapter_model.safetensors", shapes, "F32")


def _write_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]], kind: str) -> None:
    """Random tensors, one in memory at a time; norms are around zero too, which does not affect timing."""
    width = {"F32": 4, "BF16": 2}[kind]
    header, at = {}, 0
    for name, shape in shapes.items():
        size = width * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        for shape in shapes.values():
            tensor = random.standard_normal(int(np.prod(shape)), dtype=np.float32)
            tensor *= 0.02
            stream.write(tensor.data if kind == "F32" else (tensor.view(np.uint32) >> 16).astype(np.uint16).data)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer.json of the 256 bytes, one merge and an end token, 257."""
    vocabulary = {letter: number for number, letter in enumerate(BYTES.values())} | {"ab": 256}
    end = {"id": 257, "content": "<|end|>", "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    record = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]},
        "added_tokens": [end | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
    }
    (folder / "tokenizer.json").write_text(json.dumps(record, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
