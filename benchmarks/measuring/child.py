"""One process that reads documents with one model at one number of threads, and says what it took.

    python -P -m bioner_edge.benchmarks.measuring.child [PARENT] < SPEC.json

A process of its own, so that its memory is its own, and that nothing it leaves behind changes the next figure. It ends
when the process with the number PARENT does. SPEC is one JSON object:

    phase        "read": write what is found to `predictions`; "repetition": measure speed and memory
    model        a listed model's name, a GGUF file or the folder of an ONNX model
    format, labels, guidelines (or null), unit (left out: that of the manifest), constraint: see baselines.load_reader
    threads      of the runtime; the process stays on as many cores
    documents    JSON Lines of documents: `id`, `text`, perhaps `title_end`; `limit` says how many of them, or null
    predictions  read: the file that is appended to
    warm_up      repetition: how many documents are read before the clock runs, by default 1
    spawned      when this process was asked for, by `time.time`: then the answer has `start_s`, how long it took until
                 its libraries were there, which any process that extracts needs
    force        load a model that seems larger than the memory that is free, by default not

The documents of a reading are read in another process: one that ends it costs itself alone, and has `error`. Those of
a repetition are read here, since its figures are those of one process: one that ends it costs the repetition.

One JSON object is written to standard output, and nothing else ever. An error that is the caller's to mend is one line
on standard error and exit code 2; Ctrl-C is 130.

A line of predictions is what `bioner-edge extract` writes, with `cost` (what it took), `broken_answers` (those that do
not parse or depart from the text) and `salvaged` (entities read from these). One for which nothing could be read has
`error` instead of entities. Lines that are there already are kept, if they are whole, and are about the first
documents: the rest is read.
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
    """The process: 0, 2 for what the caller has to mend, 130 for Ctrl-C."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code may print
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
    """What a spec asks for. Raises BionerError."""
    phases = {"read": predict, "repetition": measure}
    if spec["phase"] not in phases:
        raise UsageError(unknown_name("phase", spec["phase"], phases))
    started = {"start_s": time.time() - spec["spawned"]} if "spawned" in spec else {}
    with pin(spec["threads"]):
        return phases[spec["phase"]](spec) | started


def _asked(spec: Spec) -> dict[str, Any]:
    """What `baselines.load_reader` is given."""
    names = ("model", "constraint", "format", "labels", "guidelines", "unit", "threads", "force")
    return {name: spec[name] for name in names if name in spec}


def _documents(spec: Spec) -> list[Document]:
    """The documents, without annotations. Raises InputError for a file that is not the suite's."""
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
    """Read the documents that have no line yet, each appended to the predictions as soon as it is done.

    Sums are over all lines, `new_seconds` over those that are new.
    """
    documents, path = _documents(spec), Path(spec["predictions"])
    started = time.perf_counter()
    opening = partial(baselines.open_reader, **_asked(spec))
    with Guard(opening) as reader, open_locked(path) as out:  # a file is made only once there is a model
        load_s = time.perf_counter() - started
        costs = _kept(path, documents)
        resumed = len(costs)
        with name_file(path):
            _read_on(reader, documents[resumed:], out, costs)
    sums = {name: sum(cost[name] for cost in costs) for name in ("seconds", *_COUNTS, "errors")}
    new_s = sum(cost["seconds"] for cost in costs[resumed:])
    return {"documents": len(documents), "resumed": resumed, "load_s": load_s, "new_seconds": new_s, **sums}


def _read_on(reader: Reader, documents: Sequence[Document], out: FileIO, costs: list[dict[str, float]]) -> None:
    """Read documents, each of which is a line of the file, and a cost, as soon as it is done.

    Those that end the process that reads wait for one that does not. Raises ModelError where too many in a row do: then
    it is not the documents, and they are to be read another time.
    """
    waiting: list[dict[str, Any]] = []
    for number, document in enumerate(documents, start=1):
        record, crash = _read(reader, document)
        waiting.append(record)
        if crash and len(waiting) == MAX_CRASHES:
            told = f"{MAX_CRASHES} documents in a row ended the process that reads them ({crash.how})"
            raise ModelError(f"{told}; {remedy(crash.how)}")
        if crash and number < len(documents):
            continue
        for row in waiting:
            journal.write(out, _line(row))
            costs.append(_cost(row))
        waiting.clear()


def _cost(record: dict[str, Any]) -> dict[str, float]:
    return {**record["cost"], "errors": "error" in record}


def _read(reader: Reader, document: Document) -> tuple[dict[str, Any], CrashError | None]:
    """What is written of a document, and what happened to the process that read it."""
    started = time.perf_counter()
    error: Exception | None = None
    try:
        found = reader(document)
    except LostError:
        raise
    except Exception as failure:  # whatever one document does to a reader, the others are read
        found, error = Extraction(document, ()), failure
    cost: dict[str, float] = {"seconds": time.perf_counter() - started}
    cost |= {name: getattr(found, name) for name in _COUNTS}
    record = {**found.to_json(), "cost": cost, "broken_answers": found.broken, "salvaged": found.salvaged}
    if error is not None:
        record["error"] = describe_error(error)
    return record, error if isinstance(error, CrashError) else None


def _line(record: dict[str, Any]) -> bytes:
    """As `extract` writes it; a text that is no Unicode is written with escapes, so that the line stays UTF-8."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode() + b"\n"


def _kept(path: Path, documents: Sequence[Document]) -> list[dict[str, float]]:
    """What each line took that is there; what was broken off behind them is cut.

    Raises InputError where they are not about the first documents: they are not ours to overwrite.
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
    """Load the model and read the documents once: the line of a repetition, but for its key and number."""
    documents, mark = _documents(spec), memory.Watermark()
    started = time.perf_counter()
    with mark.looking():
        reader = baselines.load_reader(**_asked(spec))
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
        peak = memory.peak_bytes()  # before the headers are read, which is not the model's
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
        "energy_told": meter.told,
    }


def _of_files(path: Path, context: int, watch: speed.Watch) -> dict[str, float | None]:
    """What follows from the headers of a model's files."""
    step = bandwidth.step_bytes(path)
    steps_per_s = watch.decode_steps / watch.decode_s if watch.decode_steps else None
    return {
        "model_bytes": size(path),
        "cache_bytes": memory.cache_bytes(path, context),
        "read_bytes_per_s": step * steps_per_s if step is not None and steps_per_s is not None else None,
    }


def _path(model: str) -> Path:
    """The files of a model that was loaded by this name."""
    rows = registry.listed_models()
    return rows[model].path if model in rows else Path(model)


if __name__ == "__main__":
    end_with_parent(*map(int, sys.argv[1:]))
    raise SystemExit(main())
