"""Export a model in a process of its own: python -m bioner_edge.convert.onnx.child EXPORTER FOLDER OUT THREADS

It writes OUT/model.onnx, or the reason for a failure to OUT/refused. `export` starts it and keeps its standard input
open: the process exits when that closes, so that none survives a killed conversion.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bioner_edge.errors import BionerError, printable

__all__ = ["GRAPH", "MODULES", "REFUSED", "export", "main"]

GRAPH = "model.onnx"
REFUSED = "refused"
# The exporter -> its module.
MODULES = {"builder": "bioner_edge.convert.onnx.builder", "optimum": "bioner_edge.convert.onnx.by_optimum"}


def export(exporter: str, folder: Path, out: Path, threads: int | None = None) -> Path:
    """Export the checkpoint in `folder` in this process. Raises ModelError for what cannot be exported correctly."""
    from bioner_edge.convert.onnx.torch_model import stage

    staged = stage(folder)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    import_module(MODULES[exporter]).write(staged, out / GRAPH)
    return out / GRAPH


def main(arguments: Sequence[str]) -> int:
    """Run the process. Returns 0, or 1 with the reason in OUT/refused."""
    exporter, folder, out, threads = arguments
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        export(exporter, Path(folder), Path(out), int(threads))
    except Exception as error:  # exporters raise anything for a model that they cannot write
        reason = str(error) if isinstance(error, BionerError) else f"{folder}: {_describe(exporter, error)}"
        (Path(out) / REFUSED).write_text(reason, "utf-8")
        return 1
    return 0


def _describe(exporter: str, error: Exception) -> str:
    line = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
    return f"the exporter {exporter} cannot write it: {line}"


def _exit_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever sent
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
