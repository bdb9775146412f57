"""The process in which a model is exported: python -m bioner_edge.convert.onnx.child EXPORTER FOLDER OUT THREADS

It writes OUT/model.onnx, or why it cannot into OUT/refused. `export` starts it and holds its standard input open: where
that ends so does it, and none goes on for a conversion that was killed.
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
    """Export the checkpoint in `folder` here and now. Raises ModelError for what cannot be exported rightly."""
    from bioner_edge.convert.onnx.torch_model import stage

    staged = stage(folder)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    import_module(MODULES[exporter]).write(staged, out / GRAPH)
    return out / GRAPH


def main(arguments: Sequence[str]) -> int:
    """The process. Returns 0, or 1 where OUT/refused says why not."""
    exporter, folder, out, threads = arguments
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        export(exporter, Path(folder), Path(out), int(threads))
    except Exception as error:  # whatever an exporter stumbles over, it is not a model that it can write
        told = str(error) if isinstance(error, BionerError) else f"{folder}: {_told(exporter, error)}"
        (Path(out) / REFUSED).write_text(told, "utf-8")
        return 1
    return 0


def _told(exporter: str, error: Exception) -> str:
    line = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
    return f"the exporter {exporter} cannot write it: {line}"


def _end_with_the_other() -> None:
    while os.read(0, 1):  # nothing is ever sent
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
