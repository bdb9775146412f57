"""An ONNX graph in onnxruntime, loaded with explicit settings and run on our own buffers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bioner_edge.backends.contract import Logits
from bioner_edge.errors import ModelError, printable
from bioner_edge.models.onnx.signature import Signature

__all__ = ["MOST_ROWS", "MOST_TOKENS", "Step", "reason", "session"]

MOST_ROWS = 16
"""Maximum number of sequences that read a token each in one run."""
MOST_TOKENS = 256
"""Maximum number of tokens per run: 512 are hardly faster and take 10 to 20 MB more, 64 are a fifth slower."""
_SILENT = 4  # only fatal errors are printed; others are raised, and reported by us


def session(path: Path, threads: int) -> Any:
    """Load the graph in `path` for the CPU. Raises ModelError if onnxruntime rejects it.

    The settings were measured on random models of 31M and 0.5B parameters, int8, int4 and F32, on two cores. These
    defaults are kept: the memory arena (without it the peak is 12 to 45 MB higher), repacking of weights at load time
    (else every step of int8 and int4 repacks them, and takes thirty times as long or more), and a mapped file, so that
    weights are held once.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # A fifth off each step of graphs that were not fused when they were exported; the others load no slower.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # It would keep a plan for each sequence length: 8 to 40 MB more, and no step faster.
    options.enable_mem_pattern = False
    # Threads spin within a run, which takes a third off the steps of small models, but not between runs: there they
    # would burn up to 30 ms of a core after each step, while Python decides what comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    onnxruntime.disable_telemetry_events()  # builds for Windows send some
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common base
        raise ModelError(f"{path}: onnxruntime cannot load it: {reason(error)}; convert it again") from None


def reason(error: Exception) -> str:
    """onnxruntime's message in one line, without locations in its sources."""
    text = " ".join(str(error).split())
    text = re.sub(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : |Error in execution: )+", "", text)
    text = re.sub(r"Non-zero status code returned while running |Name:'[^']*' Status Message: ", "", text)
    text = re.sub(r"Load model from .*? failed: ?|\S*onnxruntime\S*\.(cc|h):\d+ ", "", text)
    return printable(text)[:300] or type(error).__name__


class Step:
    """Runs one graph, tokens in, logits out, in fixed buffers.

    `pruned`: the graph returns logits of the last token only.
    """

    def __init__(self, session: Any, signature: Signature, path: Path, context: int, *, pruned: bool) -> None:
        self._session = session
        self._path = path
        self._asks_positions = signature.positions
        self._pruned = pruned
        most = max(MOST_ROWS, MOST_TOKENS)
        self._ids, self._positions = np.zeros((2, most), np.int64)
        self._ones = np.ones(context, np.int64)
        self._mask = np.zeros(MOST_ROWS * context, np.int64)
        self._counted = np.arange(context)
        self._logits = np.zeros((MOST_ROWS if pruned else most, signature.vocabulary_size), np.float32)
        # Getting an address from numpy takes as long as binding it; these never move.
        self._ids_at, self._positions_at = self._ids.ctypes.data, self._positions.ctypes.data
        self._ones_at, self._mask_at = self._ones.ctypes.data, self._mask.ctypes.data
        self._logits_at = self._logits.ctypes.data

    def run(self, binding: Any, pasts: Sequence[int], ids: Sequence[int]) -> Logits:
        """Read `ids`, an equal share for each row, after the positions in `pasts`. Returns logits
        (rows, vocabulary_size), valid until the next run. Several rows must read one token each. The caches must be
        bound.

        Raises ModelError if onnxruntime fails.
        """
        rows, count = len(pasts), len(ids) // len(pasts)
        total = max(pasts) + count
        self._ids[: len(ids)] = ids
        mask = self._ones_at
        if rows > 1:
            mask = self._mask_at
            self._mask[: rows * total].reshape(rows, total)[:] = self._counted[:total] <= np.array(pasts)[:, None]
        _bind(binding, "input_ids", (rows, count), self._ids_at)
        _bind(binding, "attention_mask", (rows, total), mask)
        if self._asks_positions:
            self._positions[: len(ids)] = np.add.outer(pasts, self._counted[:count]).reshape(-1)
            _bind(binding, "position_ids", (rows, count), self._positions_at)
        lines = 1 if self._pruned else count
        logits = self._logits[: rows * lines].reshape(rows, lines, -1)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, self._logits_at)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"{self._path}: onnxruntime cannot run it: {reason(error)}; convert it again") from None
        return logits[:, -1]


def _bind(binding: Any, name: str, shape: tuple[int, int], address: int) -> None:
    binding.bind_input(name, "cpu", 0, np.int64, shape, address)
