"""The speed of the bundled model on this machine, in a second or two: not a benchmark, a figure to compare machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bioner_edge.backends.kernels import choose, trial
from bioner_edge.hardware.threads import cores
from bioner_edge.loading import load
from bioner_edge.models import registry

__all__ = ["kernels", "measure"]

_TEXT = (
    "Reversible parkinsonism after a low dose of metoclopramide. A woman of 71 years, treated with lisinopril for "
    "hypertension and with metformin for diabetes, was given metoclopramide for nausea. After four days she had "
    "rigidity, a resting tremor and akathisia. The drug was stopped and biperiden given; the tremor was gone within a "
    "week. Renal failure raises the concentration of metoclopramide, and her creatinine had been high for months. "
    "We advise to test renal function before treating elderly patients, and to choose domperidone for them instead."
)
_PIECE_S = 0.35  # minimum seconds for each of the three speeds


def measure() -> dict[str, Any]:
    """Measure the bundled model on a built-in text, in this process. Raises BionerError if it cannot run."""
    began = time.perf_counter()
    with load() as extractor:
        load_s, backend = time.perf_counter() - began, extractor.backend
        extractor(_TEXT[:58])  # its title, to warm up caches
        ids = (backend.tokenize(_TEXT.encode(), False) * 8)[: min(256, backend.context // 2)]
        sequence = backend.new_sequence()

        def read(tokens: list[int], after: int) -> None:
            backend.truncate(sequence, after)
            backend.eval(sequence, tokens)

        prefill = len(ids) * _per_second(lambda: read(ids, 0))
        return {
            "model": registry.default(),
            "threads": cores(),
            "load_s": load_s,
            "prefill_tokens_per_s": prefill,
            "decode_tokens_per_s": _per_second(lambda: read(ids[:1], len(ids))),
            "documents_per_s": _per_second(lambda: extractor(_TEXT)),
        }


def kernels() -> dict[str, Any]:
    """Try the kernels of llama.cpp that are used here for the bundled model. Returns which they are (`used`), why the
    trial `failed`, or None, and `certain` as in `backends.kernels.FailedTrial`.
    """
    from bioner_edge.backends.native import library  # optional

    model, _ = registry.find(None)
    used = choose(model, *library())
    failed = trial(model, used)
    return {"used": used, "failed": failed and failed.reason, "certain": failed is not None and failed.certain}


def _per_second(act: Callable[[], object]) -> float:
    times, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < _PIECE_S:
        act()
        times += 1
    return times / spent
