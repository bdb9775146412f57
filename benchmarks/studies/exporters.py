"""Compare exporters by model family: verification and speed of the same random model.

    python -m bioner_edge.benchmarks.studies.exporters [--rounds 5] [--threads N] [ARCHITECTURE...]

For each architecture a model of 8 layers × 512 with random weights is converted at F32 by every exporter that supports
it, verified against transformers, and run by the back end as in `extract`: in turn, medians.

Needs the extras onnx and optimum. Prints a Markdown table; "*" marks the exporter of `auto`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bioner_edge.backends.loading import load_backend
from bioner_edge.benchmarks.measuring import machine
from bioner_edge.benchmarks.studies import conversion, models
from bioner_edge.convert import About, convert
from bioner_edge.convert.onnx.export import DEFAULTS, EXPORTERS
from bioner_edge.errors import BionerError, UsageError, unknown_name
from bioner_edge.models.manifest import Manifest, manifest_path
from bioner_edge.models.onnx import folder as onnx_folder

__all__ = ["SHAPE", "main"]

_LIBRARIES = ("bioner-edge", "onnxruntime", "onnxruntime-genai", "optimum-onnx", "torch", "transformers")
SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 8000,
    "max_position_embeddings": 2048,
    "original_max_position_embeddings": 2048,
    "initializer_range": 0.05,
    "query_pre_attn_scalar": 64,  # for Gemma and Granite, whose defaults do not fit this shape
    "attention_multiplier": 0.125,
    "eos_token_id": 257,
    "bos_token_id": None,
    "pad_token_id": None,
}
"""The configuration of the models; keys unknown to an architecture have no effect."""
_PROMPT, _TOKENS = 128, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 where a model cannot be made or verification fails."""
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.benchmarks.studies.exporters", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE", help="of config.json [default: all]")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each [default: 5]")
    parser.add_argument("--threads", type=int, help="threads [default: the cores of this process]")
    asked = parser.parse_args(arguments)
    try:
        print("\n".join(f"- {line}" for line in machine.describe(_LIBRARIES)))
        print("\n| architecture | exporter | max difference of a logit / std | nodes | s to export and prove | load s "
              "| prefill tokens/s | decode tokens/s |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        for architecture in asked.architectures or DEFAULTS:
            if architecture not in DEFAULTS:
                raise UsageError(unknown_name("architecture", architecture, DEFAULTS))
            with tempfile.TemporaryDirectory() as folder:
                for line in _rows(architecture, Path(folder), asked.rounds, asked.threads):
                    print(line, flush=True)
    except BionerError as error:
        print(f"exporters: {error}", file=sys.stderr)
        return 2
    return 0


def _rows(architecture: str, work: Path, rounds: int, threads: int | None) -> Iterator[str]:
    base, paths, seconds = _model(architecture, work / "base"), {}, {}
    for exporter in (name for name, row in EXPORTERS.items() if architecture in row.architectures):
        started = time.perf_counter()
        (paths[exporter],) = convert(base, work, ["F32"], About(name=exporter), to="onnx", exporter=exporter)
        seconds[exporter] = time.perf_counter() - started
    found: dict[str, list[tuple[float, float, float]]] = {exporter: [] for exporter in paths}
    for _ in range(rounds):
        for exporter, path in paths.items():
            found[exporter].append(_measure(path, threads))
    for exporter, path in paths.items():
        proof = {row["stage"].split(":")[0]: row["figure"] for row in Manifest.load(manifest_path(path)).verification}
        load, prefill, decode = (statistics.median(column) for column in zip(*found[exporter], strict=True))
        nodes = len(onnx_folder.check_confined(path).nodes)
        mark = "*" if DEFAULTS[architecture] == exporter else ""
        yield (
            f"| {architecture} | {exporter}{mark} | {proof['F32 logits']:.1e} | {nodes:,} | {seconds[exporter]:.0f} "
            f"| {load:.2f} | {_PROMPT / prefill:,.0f} | {_TOKENS / decode:,.0f} |"
        )


def _measure(path: Path, threads: int | None) -> tuple[float, float, float]:
    """Seconds to load, to read a prompt, and to read single tokens."""
    started = time.perf_counter()
    with closing(load_backend(path, threads=threads)) as backend:
        loaded = time.perf_counter() - started
        ids = list(range(_PROMPT))
        models.read(backend, ids[:8], 2)  # one-time costs of the runtime
        return loaded, *models.read(backend, ids, _TOKENS)


def _model(architecture: str, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, architecture)
    made(made.config_class(**SHAPE)).save_pretrained(folder)
    conversion.write_tokenizer(folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
