"""The baselines that `bench` measures besides our own constraints: common ways to decode the same answers.

llama-gbnf         llama.cpp's own grammar sampler in our decode loop; see llama_sampler.py
llama-cpp-python   its high-level API with its own grammar sampler; see completions.py
text-filter        unconstrained, then entities not in the text are dropped; see text_filter.py
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from bioner_edge.benchmarks.baselines.completions import COMPLETIONS
from bioner_edge.benchmarks.baselines.completions import load as load_completions
from bioner_edge.benchmarks.baselines.llama_sampler import LLAMA_GBNF
from bioner_edge.benchmarks.baselines.text_filter import TEXT_FILTER
from bioner_edge.constraints import CONSTRAINTS
from bioner_edge.errors import UsageError, unknown_name
from bioner_edge.extract import Extractor
from bioner_edge.loading import load

__all__ = ["BASELINES", "ROWS", "load_reader", "open_reader"]

BASELINES = {row.name: row for row in (LLAMA_GBNF, COMPLETIONS, TEXT_FILTER)}
ROWS = {**CONSTRAINTS, **BASELINES}
"""All constraints, baselines included, by name."""


def load_reader(
    model: str,
    *,
    constraint: str,
    format: str,
    labels: Sequence[str],
    guidelines: Mapping[str, str] | None = None,
    unit: str | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Extractor:
    """An extractor under a constraint of `ROWS`, by name. `unit` and `guidelines` default to those of the manifest.

    A format or label that the model was not fine-tuned on raises no warning: that is what a benchmark asks about.
    Raises as `bioner_edge.load` does, and UsageError for an unknown constraint, or one that the model's runtime does
    not support.
    """
    if constraint not in ROWS:
        raise UsageError(unknown_name("constraint", constraint, ROWS))
    settings: dict[str, Any] = {"format": format, "labels": labels, "guidelines": guidelines}
    settings |= {"unit": unit, "threads": threads, "force": force}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if constraint == COMPLETIONS.name:
            return load_completions(model, **settings)
        return load(model, constraint=ROWS[constraint], **settings)


def open_reader(model: str, **settings: Any) -> tuple[Extractor, None]:
    """Like `load_reader`, for another process; see `guard.Opening`."""
    return load_reader(model, **settings), None
