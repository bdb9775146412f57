"""Export a checkpoint as a float32 ONNX graph with a key/value cache, by one of two exporters.

    builder   onnxruntime-genai's model builder, corrected: fused nodes, cache in place; all families but OLMo 2
    optimum   optimum-onnx, which traces the torch model: plain nodes, a new cache at each step; all families

Each runs in its own process: its memory is returned, its output does not reach the terminal, and a crash is one line.
Nothing is downloaded, and no code in a model's folder is run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.specifiers import SpecifierSet

from bioner_edge.convert.onnx import builder, by_optimum, torch_model
from bioner_edge.convert.onnx.child import GRAPH, REFUSED
from bioner_edge.errors import ModelError, UsageError, printable, unknown_name
from bioner_edge.hardware.threads import cores
from bioner_edge.report import Report

__all__ = ["ALONE", "DEFAULTS", "EXPORTERS", "Exported", "export", "require", "run_exporter"]


@dataclass(frozen=True, slots=True)
class _Exporter:
    """What is known of an exporter before it runs.

    `cache` is as in runtime.json, `extra` the pip extra that installs it, `needs` its libraries with supported versions
    in pip's notation. `bytes_per_parameter` is its peak memory, measured on the 0.5B shape.
    """

    cache: str
    extra: str
    needs: Mapping[str, str]
    architectures: Collection[str]
    bytes_per_parameter: int


EXPORTERS: dict[str, _Exporter] = {
    "builder": _Exporter(
        cache="shared",
        extra="onnx",
        needs={
            "torch": "",
            "transformers": "",
            "onnx": "",
            "onnx-ir": "",
            "tqdm": "",
            "onnxruntime-genai": f"=={builder.VERSION}",
        },
        architectures=builder.ARCHITECTURES,
        bytes_per_parameter=7,
    ),
    "optimum": _Exporter(
        cache="grown",
        extra="optimum",
        needs={
            "torch": "",
            "transformers": f"<{by_optimum.TRANSFORMERS}",
            "onnx": "",
            "optimum-onnx": f"=={by_optimum.VERSION}",
        },
        architectures=by_optimum.ARCHITECTURES,
        bytes_per_parameter=18,
    ),
}

# The `architectures` entry of config.json -> the exporter of "auto": the builder where possible. Logits of both lie
# within 1e-5 standard deviations of transformers' in every family. They differ, on random models of 8 layers × 512
# (onnxruntime 1.31.1, 2 threads, in turn, best of 12): the builder's graphs have 102 to 180 nodes, optimum's 1,939 to
# 2,552; they load in 45 to 83 ms, not 170 to 299; they decode 1.3 (Mistral) to 1.7 times (SmolLM3) as many tokens a
# second, as their cache stays in place. And the 0.5B shape takes 23 s and 3.4 GB to export, not 167 s and 9.0 GB.
DEFAULTS = {
    "LlamaForCausalLM": "builder",
    "MistralForCausalLM": "builder",
    "SmolLM3ForCausalLM": "builder",
    "GraniteForCausalLM": "builder",
    "Qwen2ForCausalLM": "builder",
    "Qwen3ForCausalLM": "builder",
    "Gemma2ForCausalLM": "builder",
    "Gemma3ForCausalLM": "builder",
    "Phi3ForCausalLM": "builder",
    "Olmo2ForCausalLM": "optimum",
}

ALONE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""The environment of an exporter: no downloads, no telemetry, no progress bars in its log."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export: the kind of cache as in runtime.json, the number of positions that the graph is valid
    for, the exporter, and the versions of the libraries used."""

    cache: str
    context: int
    exporter: str
    versions: Mapping[str, str] = field(default_factory=dict)


def require(exporter: str, architecture: str) -> str:
    """The exporter to use for an architecture of config.json.

    Raises UsageError where it cannot work, before any long computation, and ModelError for an unknown architecture.
    """
    if exporter not in ("auto", *EXPORTERS):
        raise UsageError(unknown_name("exporter", exporter, ("auto", *EXPORTERS)))
    if architecture not in DEFAULTS:
        raise ModelError(
            f"config.json: {unknown_name('architecture', architecture, DEFAULTS)}; use a model of one of these"
        )
    chosen = DEFAULTS[architecture] if exporter == "auto" else exporter
    row = EXPORTERS[chosen]
    if architecture not in row.architectures:
        able = [name for name, other in EXPORTERS.items() if architecture in other.architectures]
        raise UsageError(f"the exporter {chosen} cannot write {architecture}; use {' or '.join(able)}")
    message = f"pip install 'bioner-edge[{row.extra}]'"
    for library, allowed in row.needs.items():
        try:
            found = version(library)
        except PackageNotFoundError:
            raise UsageError(f"the exporter {chosen} needs {library}: {message}") from None
        if not SpecifierSet(allowed).contains(found, prereleases=True):
            raise UsageError(f"the exporter {chosen} needs {library} {allowed}, but {found} is installed: {message}")
    return chosen


def export(
    folder: Path, out: Path, exporter: str = "auto", report: Report | None = None, *, threads: int | None = None
) -> Exported:
    """Write the checkpoint in `folder` as `out`/model.onnx, its tensors in files beside it.

    `exporter` is a name of `EXPORTERS`, or "auto" for that of `DEFAULTS`; `threads` are torch's, by default the cores
    of this process. Raises UsageError as `require` does, ModelError for a checkpoint that cannot be exported correctly
    and where the exporter fails; `out` then has no graph.
    """
    report = report or Report()
    architecture, context = torch_model.check(folder)
    chosen = require(exporter, architecture)
    report.step(f"exporting {architecture} with {chosen}, a graph for {context:,} positions")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="export-", dir=out) as work:
        run_exporter(chosen, folder, Path(work), threads or cores())
        # the graph is moved last: if it is there, so are its tensors
        for file in sorted(Path(work).glob(f"{GRAPH}*"), key=lambda file: file.name, reverse=True):
            os.replace(file, out / file.name)
    versions = {library: version(library) for library in EXPORTERS[chosen].needs}
    return Exported(EXPORTERS[chosen].cache, context, chosen, versions)


def run_exporter(exporter: str, folder: Path, work: Path, threads: int) -> None:
    """Run the exporter in its process, to the end. Raises ModelError unless it wrote the graph."""
    # -P: a folder called onnx in the working directory must not shadow the library
    command = [
        sys.executable,
        "-P",
        "-m",
        "bioner_edge.convert.onnx.child",
        exporter,
        str(folder),
        str(work),
        str(threads),
    ]
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **ALONE}
        )
        try:
            status = process.wait()
        finally:  # Ctrl-C, too
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
    if (work / REFUSED).is_file():
        raise ModelError((work / REFUSED).read_text("utf-8"))
    if status or not (work / GRAPH).is_file():
        ended = _describe_exit(status, EXPORTERS[exporter].bytes_per_parameter)
        raise ModelError(f"{folder}: the exporter {exporter} {ended}; its last output: {_last_line(work / 'log')}")


def _describe_exit(status: int, size: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    message = f"; it needs about {size} bytes of memory per parameter" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{message}"


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-4000:].decode("utf-8", errors="replace").split("\n")
    return next((printable(line.strip())[-300:] for line in reversed(lines) if line.strip()), "none")
