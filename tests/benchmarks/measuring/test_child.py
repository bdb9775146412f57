"""The measuring process, as the suite starts it: what it answers, writes, keeps, refuses and survives."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import bioner_edge
from bioner_edge.backends.contract import ContextFull
from bioner_edge.benchmarks import baselines
from bioner_edge.benchmarks.baselines import load_reader
from bioner_edge.benchmarks.measuring import child, energy
from bioner_edge.document import Document
from bioner_edge.errors import InputError, ModelError
from bioner_edge.extract import Extractor
from bioner_edge.run import MAX_CRASHES

COMMAND = [sys.executable, "-P", "-m", "bioner_edge.benchmarks.measuring.child"]
DATA = Path(bioner_edge.__file__).parent / "data"
LABELS = ["Chemical", "Disease"]
TEXTS = (
    "Naloxone reverses the antihypertensive effect of clonidine.",
    "Renal failure followed 200 mg of amphotericin B. Clonidine lowers blood pressure.",
    "患者は高血圧を有し、アスピリンを服用。",
    "",
)
COUNTS = {"answers", "calls", "fed", "prompt", "tokens", "chosen"}
REPETITION = {
    "threads", "documents", "unread", "seconds", "load_s", "warm_up_s", "ttft_s", "latencies_s", "prefill_tokens_per_s",
    "decode_tokens_per_s", "documents_per_s", "calls_per_answer", "tokens_per_answer", "forced_share",
    "peak_rss_bytes", "anonymous_bytes", "file_bytes", "before_bytes", "model_bytes", "cache_bytes",
    "read_bytes_per_s", "bandwidth_share", "energy_j", "energy_told",
}  # fmt: skip


def documents(folder: Path, texts: Iterable[str] = TEXTS) -> Path:
    path = folder / "documents.jsonl"
    rows = [{"id": f"d{n}", "text": text, "title_end": None} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A reading of four documents by the random model."""
    return {
        "phase": "read",
        "model": str(tiny_model),
        "format": "multi_tag",
        "labels": LABELS,
        "guidelines": None,
        "constraint": "grounded",
        "threads": 1,
        "documents": str(documents(tmp_path)),
        "limit": None,
        "predictions": str(tmp_path / "predictions.jsonl"),
        "force": False,
        "warm_up": 1,
    }


def start(spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, input=json.dumps(spec), capture_output=True, text=True)


def answered_apart(spec: dict[str, Any]) -> dict[str, Any]:
    """What the process answers, which must be all that it says."""
    done = start(spec)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1 and done.stdout.endswith("\n")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def answered(spec: dict[str, Any]) -> dict[str, Any]:
    """The same answer, given in this process, which takes no two seconds to start."""
    answer: dict[str, Any] = json.loads(json.dumps(child.run(spec), allow_nan=False))
    return answer


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading reads in this process too, where it can be looked at, unless it is to crash."""

    def unguarded(opening: Callable[[], tuple[Extractor, None]]) -> Extractor:
        return opening()[0]

    if "crashing" not in request.fixturenames:
        monkeypatch.setattr(child, "Guard", unguarded)


def lines(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(spec["predictions"]).read_text("utf-8").splitlines()]


def untimed(spec: dict[str, Any]) -> list[str]:
    """The lines, byte for byte, but for the seconds."""
    rows = []
    for line in Path(spec["predictions"]).read_text("utf-8").splitlines():
        row = json.loads(line)
        assert json.dumps(row, ensure_ascii=False) == line or json.dumps(row) == line
        rows.append(line.replace(f'"seconds": {json.dumps(row["cost"].pop("seconds"))}, ', "", 1))
        assert '"seconds"' not in rows[-1]
    return rows


# Reading


@pytest.mark.parametrize("constraint", ["grounded", "free", "llama-gbnf", "llama-cpp-python", "text-filter"])
def test_lines_are_what_extract_writes(spec: dict[str, Any], constraint: str) -> None:
    answer = answered(spec | {"constraint": constraint})
    with load_reader(spec["model"], constraint=constraint, format="multi_tag", labels=LABELS, threads=1) as own:
        found = [own(Document(f"d{n}", text)) for n, text in enumerate(TEXTS)]
    for row, extraction in zip(lines(spec), found, strict=True):
        cost, broken, salvaged = row.pop("cost"), row.pop("broken_answers"), row.pop("salvaged")
        assert row == extraction.to_json()
        assert cost.keys() == {"seconds", *COUNTS} and cost["seconds"] >= 0
        assert {name: cost[name] for name in COUNTS} == {name: getattr(extraction, name) for name in COUNTS}
        assert (broken, salvaged) == (extraction.broken, extraction.salvaged)
    assert answer["seconds"] == answer["new_seconds"] == sum(row["cost"]["seconds"] for row in lines(spec))
    assert {name: answer[name] for name in COUNTS} == {n: sum(getattr(e, n) for e in found) for n in COUNTS}
    assert (answer["documents"], answer["resumed"], answer["errors"]) == (4, 0, 0) and answer["load_s"] > 0


def test_the_same_twice(spec: dict[str, Any], tmp_path: Path) -> None:
    again = spec | {"predictions": str(tmp_path / "again.jsonl")}
    answered_apart(spec)
    answered(again)
    assert untimed(spec) == untimed(again) and len(untimed(spec)) == 4


def test_title_limit_unit_and_guidelines(spec: dict[str, Any]) -> None:
    text = "Hypertension fell after clonidine. Naloxone reverses the antihypertensive effect of clonidine."
    Path(spec["documents"]).write_text(
        json.dumps({"id": "1", "text": text, "title_end": 12}) + "\n" + json.dumps({"id": "2", "text": text}) + "\n"
    )
    answered(spec)
    assert [row["cost"]["answers"] for row in lines(spec)] == [3, 2]
    assert [row.get("title_end") for row in lines(spec)] == [12, None]
    plain = lines(spec)
    Path(spec["predictions"]).unlink()
    assert answered(spec | {"limit": 1, "unit": "document"})["documents"] == 1
    assert [row["cost"]["answers"] for row in lines(spec)] == [1]
    Path(spec["predictions"]).unlink()
    answered(spec | {"limit": 1, "guidelines": {"Chemical": "a drug that is not named here"}})
    assert lines(spec)[0]["cost"]["prompt"] == plain[0]["cost"]["prompt"]  # it is in the instruction, read before
    assert lines(spec)[0]["entities"] != plain[0]["entities"]


def test_a_bundled_model_by_name(spec: dict[str, Any]) -> None:
    answered(spec | {"model": "chemdis-9m"})
    assert {(e["text"], e["label"]) for e in lines(spec)[0]["entities"]} == {
        ("Naloxone", "Chemical"),
        ("clonidine", "Chemical"),
    }


def test_documents_that_cannot_be_read_have_a_line_too(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["documents"] = str(documents(tmp_path, (TEXTS[0], "Aspirin \ud800.", TEXTS[1])))
    answer = answered(spec)
    first, broken, last = lines(spec)
    assert broken["error"].startswith("document d1: lone surrogate U+D800 at offset 8")
    assert (broken["id"], broken["text"], broken["entities"]) == ("d1", "Aspirin \ud800.", [])
    assert {broken["cost"][name] for name in COUNTS} == {0}
    assert "error" not in first and "error" not in last and last["cost"]["answers"] == 1
    assert (answer["documents"], answer["errors"]) == (3, 1)
    Path(spec["predictions"]).read_bytes().decode("utf-8")
    assert answered(spec) | {"load_s": 0} == answer | {"load_s": 0, "resumed": 3, "new_seconds": 0}


@pytest.mark.parametrize("error", [ValueError("Aspirin"), ContextFull("no room"), MemoryError(), RecursionError()])
def test_a_document_that_no_reader_survives_is_left_out_alone(
    spec: dict[str, Any], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the reading, the warm-up and the timed repetition alike."""
    call = Extractor.__call__

    def failing(self: Extractor, source: Any) -> Any:
        if source.id in ("d0", "d2"):
            raise error
        return call(self, source)

    monkeypatch.setattr(Extractor, "__call__", failing)
    answer = child.run(spec)
    assert (answer["documents"], answer["errors"]) == (4, 2)
    defect = rf"{type(error).__name__} in test_child\.py:\d+, which is a bug"
    told = re.compile("no room" if isinstance(error, ContextFull) else defect)
    for n, line in enumerate(lines(spec)):
        assert bool(told.match(line.get("error", ""))) == (n in (0, 2))
        assert "Aspirin" not in line.get("error", "")
    found = child.run(spec | {"phase": "repetition"})
    assert found["unread"] == ["d0", "d2"] and found["documents"] == len(found["latencies_s"]) == 2


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are read as support/crashing.py does, in a process of their own."""
    support = str(Path(__file__).parents[2] / "support")
    monkeypatch.syspath_prepend(support)
    monkeypatch.setenv("PYTHONPATH", support)
    import crashing  # type: ignore[import-not-found]

    monkeypatch.setattr(baselines, "open_reader", crashing.open_reader)


@pytest.mark.usefixtures("crashing")
def test_a_crash_costs_the_document_at_hand(spec: dict[str, Any], tmp_path: Path) -> None:
    texts = ("segfault", "asthma", "abort", "segfault", "fault private", "asthma", "exit")
    spec["documents"] = str(documents(tmp_path, texts))
    answer = child.run(spec)
    assert (answer["documents"], answer["errors"]) == (7, 5)
    found = lines(spec)
    assert [(row["id"], row["text"]) for row in found] == [(f"d{n}", text) for n, text in enumerate(texts)]
    told = "document d{}: the process that read it was ended by {}"
    crashes = {0: "SIGSEGV", 2: "SIGABRT", 3: "SIGSEGV", 6: "exit code 3"}
    for number, how in crashes.items():
        assert found[number]["error"] == told.format(number, how) and found[number]["entities"] == []
    assert found[4]["error"].startswith("document d4: a bug in bioner-edge, please report it: TypeError in crashing")
    assert found[1]["entities"] and found[5]["entities"]


@pytest.mark.usefixtures("crashing")
def test_crashes_in_a_row_end_the_reading_and_cost_no_document(spec: dict[str, Any], tmp_path: Path) -> None:
    """Then it is not the documents: once what it is has gone, they are read."""
    spec["documents"] = str(documents(tmp_path, ("asthma", *["segfault"] * MAX_CRASHES, "asthma")))
    with pytest.raises(
        ModelError, match=r"3 documents in a row ended the process that reads them \(SIGSEGV\); `bioner"
    ):
        child.run(spec)
    assert [row["id"] for row in lines(spec)] == ["d0"]


@pytest.mark.usefixtures("crashing")
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_disk_that_is_full_is_told_with_the_file(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for it. What is there of a line that did not fit is no line."""
    import resource

    spec["documents"] = str(documents(tmp_path, ["asthma"] * 10))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(spec)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert child.main() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err.splitlines()[-1] == f"{spec['predictions']}: File too large"
    assert child.run(spec)["resumed"] > 0 and len(lines(spec)) == 10


def test_nothing_else_is_on_standard_output(spec: dict[str, Any]) -> None:
    """What a library prints, in Python or below it, goes to standard error."""
    noisy = """
import os
from bioner_edge.benchmarks import baselines
from bioner_edge.benchmarks.measuring import child
reader = baselines.load_reader
def loud(*given, **settings):
    os.write(1, b"from below; ")
    print("from above")
    return reader(*given, **settings)
baselines.load_reader = loud
raise SystemExit(child.main())
"""
    command = [sys.executable, "-P", "-c", noisy]
    done = subprocess.run(command, input=json.dumps(spec | {"phase": "repetition"}), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and json.loads(done.stdout)["documents"] == 4
    assert "from below" in done.stderr and "from above" in done.stderr


# Broken off and taken up


def test_a_line_is_written_before_the_next_document_is_begun(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[int] = []
    call = Extractor.__call__

    def noted(self: Extractor, source: Any) -> Any:
        there.append(Path(spec["predictions"]).read_bytes().count(b"\n"))
        return call(self, source)

    monkeypatch.setattr(Extractor, "__call__", noted)
    child.run(spec)
    assert there == [0, 1, 2, 3]


def test_a_killed_reading_goes_on(spec: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"{TEXTS[n % 2]} Case {n}." for n in range(120)]
    spec["documents"], predictions = str(documents(tmp_path, texts)), Path(spec["predictions"])
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(json.dumps(spec).encode())
        process.stdin.close()
        while process.poll() is None and not (predictions.exists() and predictions.read_bytes().count(b"\n") >= 2):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = predictions.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    predictions.write_bytes(whole + b'{"id": "d9", "text": "Nalox')
    answer = answered(spec)
    assert 2 <= answer["resumed"] == whole.count(b"\n") < 120
    assert predictions.read_bytes().startswith(whole)
    assert answer["seconds"] > answer["new_seconds"] > 0 and answer["documents"] == 120
    at_once = spec | {"predictions": str(tmp_path / "at once.jsonl")}
    answered(at_once)
    assert untimed(spec) == untimed(at_once)


@pytest.mark.parametrize("rest", [b"", b"{", b'{"id": "d1", "text": "", "cost": {}}', b"\xff"])
def test_a_line_that_was_broken_off_is_cut(spec: dict[str, Any], rest: bytes) -> None:
    answered(spec)
    expected = untimed(spec)
    path = Path(spec["predictions"])
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + rest)
    assert answered(spec)["resumed"] == 1
    assert untimed(spec) == expected


@pytest.mark.parametrize(
    "other",
    [
        '{"id": "d1", "text": "Naloxone reverses the antihypertensive effect of clonidine.", "cost": {"seconds": 1}}\n',
        '{"id": "d0", "text": "Another text.", "cost": {"seconds": 1}}\n',
        '{"id": "d0"}\n',
        "no JSON\n",
        "[]\n",
        "\n",
    ],
)
def test_predictions_of_other_documents_stay(spec: dict[str, Any], other: str) -> None:
    path = Path(spec["predictions"])
    path.write_text(other + "{torn")
    done = start(spec)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{path}: holds predictions of other documents; remove it, or write elsewhere\n"
    assert path.read_text() == other + "{torn"


def test_more_predictions_than_documents_stay(spec: dict[str, Any]) -> None:
    answered(spec)
    assert start(spec | {"limit": 2}).returncode == 2
    assert len(lines(spec)) == 4


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["documents"], predictions = str(documents(tmp_path, TEXTS * 200)), Path(spec["predictions"])
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(json.dumps(spec).encode())
    process.stdin.close()
    process.stdin = None
    while process.poll() is None and not (predictions.exists() and predictions.stat().st_size):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate()
    assert (process.returncode, out, told) == (130, b"", b"")


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phase": "wait"}, "unknown phase 'wait'; known: read, repetition"),
        ({"constraint": "tight"}, "unknown constraint 'tight'; known: free, "),
        ({"format": "xml"}, "unknown format 'xml'; known: "),
        ({"threads": 100_000}, "100000 threads on the "),
        ({"model": "nosuch"}, "unknown model 'nosuch'; known: "),
        ({"documents": "/nowhere/documents.jsonl"}, "/nowhere/documents.jsonl: cannot be read: No such file"),
        ({"model": str(DATA / "chemdis-9m-int8-onnx"), "constraint": "llama-gbnf"}, "llama-gbnf needs llama.cpp"),
    ],
)
def test_refused(spec: dict[str, Any], change: dict[str, Any], message: str) -> None:
    done = start(spec | change)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not Path(spec["predictions"]).exists()


@pytest.mark.parametrize("phase", ["read", "repetition"])
@pytest.mark.parametrize("constraint", ["grounded", "llama-cpp-python"])
def test_a_model_that_cannot_be_loaded(spec: dict[str, Any], tmp_path: Path, phase: str, constraint: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(
        (DATA / "chemdis-9m-Q8_0.gguf").read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight")
    )
    done = start(spec | {"model": str(path), "phase": phase, "constraint": constraint})
    assert (done.returncode, done.stdout) == (2, "")
    assert "broken.gguf" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["[1]\n", '{"id": "1"}\n', "{\n", '"text"\n'])
def test_documents_of_another_kind(spec: dict[str, Any], content: str) -> None:
    Path(spec["documents"]).write_text(content)
    with pytest.raises(InputError, match="not JSON Lines with `id` and `text`"):
        child.run(spec)


# Repetitions


@pytest.mark.parametrize("constraint", ["grounded", "llama-cpp-python"])
def test_a_repetition(spec: dict[str, Any], constraint: str) -> None:
    found = answered(spec | {"phase": "repetition", "constraint": constraint, "warm_up": 2})
    assert found.keys() == REPETITION
    assert (found["threads"], found["documents"], len(found["latencies_s"])) == (1, 4, 4)
    assert found["seconds"] == pytest.approx(sum(found["latencies_s"]))
    assert found["documents_per_s"] == pytest.approx(4 / found["seconds"])
    assert 0 < found["ttft_s"] < found["seconds"] and found["load_s"] > 0 and found["warm_up_s"] > 0
    assert found["model_bytes"] == Path(spec["model"]).stat().st_size
    assert found["cache_bytes"] == 2048 * 2 * 2 * 32 * 2
    assert found["read_bytes_per_s"] > 0 and found["bandwidth_share"] is None
    assert (found["forced_share"] > 0) == (constraint == "grounded")
    assert not Path(spec["predictions"]).exists()
    if sys.platform == "linux":
        assert found["peak_rss_bytes"] >= found["before_bytes"] > 0
        assert found["peak_rss_bytes"] >= max(found["anonymous_bytes"], found["file_bytes"]) > 0
        assert found["anonymous_bytes"] + found["file_bytes"] > found["before_bytes"]
    if found["energy_j"] is None:
        assert "RAPL" in found["energy_told"] or "permission" in found["energy_told"]


def test_a_repetition_on_onnxruntime(spec: dict[str, Any]) -> None:
    model = DATA / "chemdis-9m-int8-onnx"
    found = answered({key: value for key, value in spec.items() if key not in ("predictions", "warm_up", "force")} | {
        "phase": "repetition", "model": str(model), "limit": 2,
    })  # fmt: skip
    assert found.keys() == REPETITION and found["documents"] == 2
    assert found["cache_bytes"] == 640 * 6 * 2 * 4 * 64 * 4
    parts = ("model.onnx", "model.onnx.data", "runtime.json", "tokenizer.json")
    assert found["model_bytes"] == sum((model / name).stat().st_size for name in parts)


def test_only_the_timed_documents_count(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up and loading are not in the figures, and energy is that of the documents."""
    read: list[str] = []
    looked: list[int] = []
    call = Extractor.__call__

    def noted(self: Extractor, source: Any) -> Any:
        read.append(source.id)
        return call(self, source)

    class Counting(energy.Meter):
        def __init__(self) -> None:
            looked.append(len(read))
            self.source = "counted"

        def look(self) -> None:
            looked.append(len(read))

        @property
        def joules(self) -> float:
            looked.append(len(read))
            return 7.5

    monkeypatch.setattr(Extractor, "__call__", noted)
    monkeypatch.setattr(child, "Meter", Counting)
    found = child.run(spec | {"phase": "repetition", "warm_up": 3})
    assert read == ["d0", "d1", "d2", "d0", "d1", "d2", "d3"]
    assert looked == [3, 4, 5, 6, 7, 7]
    assert (found["energy_j"], found["energy_told"], found["documents"]) == (7.5, "counted", 4)


def test_what_a_step_reads(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    watches = []
    figures = child.speed.figures

    def noted(watch: Any) -> Any:
        watches.append(watch)
        return figures(watch)

    monkeypatch.setattr(child.speed, "figures", noted)
    found = child.run(spec | {"phase": "repetition"})
    (watch,) = watches
    assert found["read_bytes_per_s"] == pytest.approx(
        child.bandwidth.step_bytes(Path(spec["model"])) * watch.decode_steps / watch.decode_s  # type: ignore[operator]
    )
    monkeypatch.setattr(child.bandwidth, "step_bytes", lambda path: None)
    assert child.run(spec | {"phase": "repetition"})["read_bytes_per_s"] is None
    nothing = documents(Path(spec["documents"]).parent, [""])
    assert child.run(spec | {"phase": "repetition", "documents": str(nothing)})["read_bytes_per_s"] is None


def test_a_repetition_without_a_document_is_an_error(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["documents"] = str(documents(tmp_path, ["\ud800"]))
    with pytest.raises(InputError, match="none of 1 documents can be read"):
        child.run(spec | {"phase": "repetition"})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
@pytest.mark.parametrize("phase", ["read", "repetition"])
def test_the_cores_are_taken_before_the_runtime_starts(
    spec: dict[str, Any], phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []

    def refused(model: str, **settings: Any) -> Any:
        seen.append(os.sched_getaffinity(0))
        assert settings["threads"] == 1
        raise ModelError("enough")

    before = os.sched_getaffinity(0)
    monkeypatch.setattr(child.baselines, "load", refused)
    with pytest.raises(ModelError):
        child.run(spec | {"phase": phase})
    assert len(seen[0]) == 1 and os.sched_getaffinity(0) == before
