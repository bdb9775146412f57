"""Measure one model at one number of threads in a process of its own.

    python -P -m bioner_edge.benchmarks.measuring.child [PARENT] < SPEC.json

A separate process has its own memory and leaves nothing behind that changes the next figure. It exits when the process
with the number PARENT does. SPEC is one JSON object:

    phase        "read": write predictions to `predictions`; "repetition": measure speed and memory
    model        a listed model's name, a GGUF file or the folder of an ONNX model
    format, labels, guidelines (or null), unit (default: that of the manifest), constraint: see baselines.load_reader
    threads      of the runtime; the process is bound to as many cores
    documents    JSON Lines of documents: `id`, `text`, optional `title_end`; `limit` is how many to read, or null
    predictions  read: the file to append to
    warm_up      repetition: how many documents are read before timing starts, by default 1
    spawned      when this process was requested, by `time.time`: the answer then has `start_s`, the time until its
                 libraries were loaded, which every extracting process needs
    force        load a model that seems too large for the free memory, by default not

In phase "read", documents are read in a child process: one that crashes it is recorded with `error`, and the others are
read. In phase "repetition" they are read in this process, whose figures are measured: a crash fails the repetition.

One JSON object is written to standard output, and nothing else. A user's error is one line on standard error and exit
code 2; Ctrl-C is 130.

A line of predictions is what `bioner-edge extract` writes, with `cost` (time and tokens), `broken_answers` (those that
do not parse or depart from the text) and `salvaged` (entities read from these). A document that could not be read has
`error` instead of entities. Existing complete lines about the first documents are kept, and the rest is read.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

from bioner_edge.benchmarks import baselines
from bioner_edge.benchmarks.measuring import bandwidth, memory, speed
from bioner_edge.benchmarks.measuring.energy import Meter
from bioner_edge.benchmarks.measuring.machine import pin
from bioner_edge.benchmarks.process import describe_error
from bioner_edge.document import Document
from bioner_edge.errors import BionerError, CrashError, InputError, ModelError, UsageError, name_file, unknown_name
from bioner_edge.extraction import Extraction
from bioner_edge.guard import Guard, LostError, Reader, remedy
from bioner_edge.io import journal
from bioner_edge.io.lock import open_locked
from bioner_edge.models import registry
from bioner_edge.models.manifest import size
from bioner_edge.processes import end_with_parent
from bioner_edge.run import MAX_CRASHES

__all__ = ["main", "measure", "predict", "run"]

Spec = dict[str, Any]
_COUNTS = ("answers", "calls", "fed", "prompt", "tokens", "chosen")


def main() -> int:
    """Run the process: 0, 2 for a user's error, 130 for Ctrl-C."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # redirects output of native code
    warnings.simplefilter("ignore")
    try:
        found = run(json.load(sys.stdin))
    except (BionerError, OSError) as error:
        print(describe_error(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    with answer:
        answer.write(json.dumps(found, allow_nan=False) + "\n")
    return 0


def run(spec: Spec) -> dict[str, Any]:
    """Run the phase of a spec. Raises BionerError."""
    phases = {"read": predict, "repetition": measure}
    if spec["phase"] not in phases:
        raise UsageError(unknown_name("phase", spec["phase"], phases))
    started = {"start_s": time.time() - spec["spawned"]} if "spawned" in spec else {}
    with pin(spec["threads"]):
        return phases[spec["phase"]](spec) | started


def _reader_settings(spec: Spec) -> dict[str, Any]:
    """The arguments of `baselines.load_reader`."""
    names = ("model", "constraint", "format", "labels", "guidelines", "unit", "threads", "force")
    return {name: spec[name] for name in names if name in spec}


def _documents(spec: Spec) -> list[Document]:
    """The documents, without annotations. Raises InputError for a file that the suite did not write."""
    path = Path(spec["documents"])
    try:
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, spec.get("limit"))]
        return [Document(row["id"], row["text"], (), row.get("title_end")) for row in rows]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not JSON Lines with `id` and `text`") from None


# --- Phase "read"


def predict(spec: Spec) -> dict[str, Any]:
    """Read the documents that have no line yet, appending each prediction at once.

    Sums are over all lines, `new_seconds` over the new ones.
    """
    documents, path = _documents(spec), Path(spec["predictions"])
    started = time.perf_counter()
    opening = partial(baselines.open_reader, **_reader_settings(spec))
    with Guard(opening) as reader, open_locked(path) as out:  # create the file only after the model is loaded
        load_s = time.perf_counter() - started
        costs = _kept_costs(path, documents)
        resumed = len(costs)
        with name_file(path):
            _read_on(reader, documents[resumed:], out, costs)
    sums = {name: sum(cost[name] for cost in costs) for name in ("seconds", *_COUNTS, "errors")}
    new_s = sum(cost["seconds"] for cost in costs[resumed:])
    return {"documents": len(documents), "resumed": resumed, "load_s": load_s, "new_seconds": new_s, **sums}


def _read_on(reader: Reader, documents: Sequence[Document], out: FileIO, costs: list[dict[str, float]]) -> None:
    """Read documents, appending a line and a cost for each at once.

    Documents that crash the reading process are written only after one that does not. Raises ModelError where too many
    in a row crash: then the cause is not the documents, and they remain to be read.
    """
    waiting: list[dict[str, Any]] = []
    for number, document in enumerate(documents, start=1):
        record, crash = _read(reader, document)
        waiting.append(record)
        if crash and len(waiting) == MAX_CRASHES:
            message = f"{MAX_CRASHES} documents in a row ended the process that reads them ({crash.how})"
            raise ModelError(f"{message}; {remedy(crash.how)}")
        if crash and number < len(documents):
            continue
        for row in waiting:
            journal.write(out, _line(row))
            costs.append(_cost(row))
        waiting.clear()


def _cost(record: dict[str, Any]) -> dict[str, float]:
    return {**record["cost"], "errors": "error" in record}


def _read(reader: Reader, document: Document) -> tuple[dict[str, Any], CrashError | None]:
    """The record of a document, and the crash of the process that read it, if any."""
    started = time.perf_counter()
    error: Exception | None = None
    try:
        found = reader(document)
    except LostError:
        raise
    except Exception as failure:  # one document's failure must not stop the others
        found, error = Extraction(document, ()), failure
    cost: dict[str, float] = {"seconds": time.perf_counter() - started}
    cost |= {name: getattr(found, name) for name in _COUNTS}
    record = {**found.to_json(), "cost": cost, "broken_answers": found.broken, "salvaged": found.salvaged}
    if error is not None:
        record["error"] = describe_error(error)
    return record, error if isinstance(error, CrashError) else None


def _line(record: dict[str, Any]) -> bytes:
    """As `extract` writes it; a text with lone surrogates is written with escapes, so that the line is valid UTF-8."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode() + b"\n"


def _kept_costs(path: Path, documents: Sequence[Document]) -> list[dict[str, float]]:
    """The costs of the existing lines; an incomplete last line is cut off.

    Raises InputError where they are not about the first documents, since they must not be overwritten.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        rows = [json.loads(line) for line in data[:whole].split(b"\n")[:-1]]
        same = [(row["id"], row["text"]) for row in rows] == [(d.id, d.text) for d in documents[: len(rows)]]
        costs = [_cost(row) for row in rows]
        if same and whole < len(data):
            os.truncate(path, whole)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise InputError(f"{path}: holds predictions of other documents; remove it, or write elsewhere")
    return costs


# --- Phase "repetition"


def measure(spec: Spec) -> dict[str, Any]:
    """Load the model and read the documents once: the line of a repetition, without its key and number."""
    documents, mark = _documents(spec), memory.Watermark()
    started = time.perf_counter()
    with mark.sample():
        reader = baselines.load_reader(**_reader_settings(spec))
    load_s = time.perf_counter() - started
    with reader:
        loaded = time.perf_counter()
        speed.warm_up(reader, documents[: spec.get("warm_up", 1)])
        warm_up_s = time.perf_counter() - loaded
        meter = Meter()

        def between() -> None:
            mark.look()
            meter.look()

        watch = speed.read(reader, documents, between)
        energy_j = meter.joules
        peak = memory.peak_bytes()  # before headers are read, which the model does not need
        context = reader.backend.context
    return {
        "threads": spec["threads"],
        "load_s": load_s,
        "warm_up_s": warm_up_s,
        **speed.figures(watch),
        "peak_rss_bytes": peak,
        "anonymous_bytes": mark.anonymous_bytes,
        "file_bytes": mark.file_bytes,
        "before_bytes": mark.before_bytes,
        **_of_files(_path(spec["model"]), context, watch),
        "bandwidth_share": None,
        "energy_j": energy_j,
        "energy_told": meter.source,
    }


def _of_files(path: Path, context: int, watch: speed.Watch) -> dict[str, float | None]:
    """Figures from the headers of a model's files."""
    step = bandwidth.step_bytes(path)
    steps_per_s = watch.decode_steps / watch.decode_s if watch.decode_steps else None
    return {
        "model_bytes": size(path),
        "cache_bytes": memory.cache_bytes(path, context),
        "read_bytes_per_s": step * steps_per_s if step is not None and steps_per_s is not None else None,
    }


def _path(model: str) -> Path:
    """The files of a model loaded by this name."""
    rows = registry.listed_models()
    return rows[model].path if model in rows else Path(model)


if __name__ == "__main__":
    end_with_parent(*map(int, sys.argv[1:]))
    raise SystemExit(main())
