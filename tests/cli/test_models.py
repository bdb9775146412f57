"""`bioner-edge models`: list, show, verify."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bioner_edge.models import hub, registry
from bioner_edge.models.hub_lock import FOLDER
from bioner_edge.models.manifest import digest, digests, size
from bioner_edge.models.registry import Manifest, manifest_path

Run = Callable[..., tuple[int, str, list[str]]]
DATA = Path(registry.__file__).parents[1] / "data"
FILE = "chemdis-9m-Q8_0.gguf"


@pytest.fixture
def run(cli: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`cli models`."""
    monkeypatch.delenv("BIONER_MODELS", raising=False)
    return partial(cli, "models")


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """What a conversion leaves: a file, its manifest, and the list."""
    folder = tmp_path / "dist"
    folder.mkdir()
    shutil.copy(DATA / FILE, folder / "mine-Q8_0.gguf")
    shutil.copy(manifest_path(DATA / FILE), folder / "mine-Q8_0.json")
    registry.write_list(folder)
    return folder


def field(number: int, *parts: bytes | int) -> bytes:
    """A field of a protocol buffer: a number below 128, or fewer than 16384 bytes."""
    if isinstance(parts[0], int):
        return bytes([number << 3, parts[0]])
    value = b"".join(part for part in parts if isinstance(part, bytes))
    return bytes([number << 3 | 2, len(value) & 127 | 128, len(value) >> 7]) + value


def cached(name: bytes) -> bytes:
    """An input or output: float32 of [B, 2, past, 4]."""
    dims = (field(2, b"B"), field(1, 2), field(2, b"past"), field(1, 4))
    return field(1, name) + field(2, field(1, field(1, 1), field(2, *(field(1, dim) for dim in dims))))


@pytest.fixture
def onnx(dist: Path) -> Path:
    """A folder with an ONNX model beside the file, listed too: 320 weights in blocks, 4 in float32."""
    numbers = {b"K": 32, b"N": 10, b"bits": 8, b"block_size": 32}
    attributes = [field(5, field(1, key), field(3, value), b"\xa0\1\2") for key, value in numbers.items()]
    inputs = [field(1, name) for name in (b"x", b"q", b"s")]
    node = field(1, *inputs, field(2, b"y"), field(4, b"MatMulNBits"), field(7, b"com.microsoft"), *attributes)
    block = field(1, 10) + field(1, 1) + field(1, 32) + field(2, 2) + field(8, b"q") + field(9, bytes(320))
    scales = field(1, 10) + field(2, 1) + field(8, b"s") + field(9, bytes(40))
    norm = field(1, 4) + field(2, 1) + field(8, b"n") + field(9, bytes(16))
    inputs = [field(11, cached(b"past.%d.key" % layer)) for layer in range(3)]
    graph = field(7, node, *(field(5, tensor) for tensor in (block, scales, norm)), *inputs, field(12, cached(b"y")))
    folder = dist / "mine-int8-onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(field(1, 10) + graph + field(8, field(2, 21)))
    told = {"context": 640, "bos": None, "end_tokens": [0], "chat_template": None, "cache": "grown"}
    (folder / "runtime.json").write_text(json.dumps({**told, "bos_token": "", "eos_token": ""}))
    (folder / "tokenizer.json").write_text("{}")
    manifest = replace(
        Manifest.load(dist / "mine-Q8_0.json"), files=digests(folder), sha256=digest(folder), level="int8"
    )
    manifest.save(manifest_path(folder))
    registry.write_list(dist)
    return folder


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_list(run: Run) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, []) and "\x1b" not in out and max(map(len, out.split("\n"))) <= 100
    lines = {line.split()[0]: line for line in out.split("\n") if line.strip()}
    for part in ("multi_tag", "Chemical, Disease", "Apache-2.0", "10.2 MB", "yes"):
        assert part in lines["chemdis-9m"]
    for part in ("Gemma Terms of Use", "yes", "2.0 GB", "no"):
        assert part in lines["gemma-3-1b-it"]
    assert "6.2 GB" in lines["smollm3-3b"] and lines["model"].split()[1] == "formats"
    assert run() == (0, out, [])


def test_the_list_as_json(run: Run) -> None:
    code, out, err = run("list", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert (code, err) == (0, []) and set(rows) == {*registry.listed_models(), *registry.bases()}
    assert {row["kind"] for row in rows.values()} == {"tuned", "base"}
    assert rows["chemdis-9m"]["path"] == str(DATA / FILE) and rows["chemdis-9m"]["bytes"] == 10_168_512
    assert rows["smollm3-3b"] == {
        "name": "smollm3-3b",
        "kind": "base",
        "formats": [],
        "labels": [],
        "license": "Apache-2.0",
        "bytes": 6_150_197_248,
        "on_disk": "no",
        "path": "models/smollm3-3b",
        "description": "3 billion parameters; tuned for chat, can think aloud first",
        "repo": "HuggingFaceTB/SmolLM3-3B",
        "gated": False,
    }


def test_ones_own_models(run: Run, dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_MODELS", str(dist))
    rows = {row["name"]: row for row in map(json.loads, run("list", "--json")[1].splitlines())}
    assert (rows["mine-Q8_0"]["kind"], rows["mine-Q8_0"]["on_disk"]) == ("tuned", "yes")
    assert run("verify", "mine-Q8_0")[0] == 0
    (dist / "mine-Q8_0.gguf").unlink()
    rows = {row["name"]: row for row in map(json.loads, run("list", "--json")[1].splitlines())}
    assert (rows["mine-Q8_0"]["bytes"], rows["mine-Q8_0"]["on_disk"]) == (None, "no")
    monkeypatch.setenv("BIONER_MODELS", str(dist / "gone"))
    code, out, (line,) = run("list")
    assert (code, out) == (2, "") and line.endswith(
        "gone/models.toml: the list of models cannot be read: No such file or directory"
    )


def test_a_model_in_full(run: Run) -> None:
    code, out, err = run("show", "chemdis-9m")
    manifest = Manifest.load(manifest_path(DATA / FILE))
    assert (code, err) == (0, []) and "\x1b" not in out
    words = " ".join(out.split())
    for part in ("multi_tag", "8.5084", "Q8_0: 44 F32: 13", "llama", "9,309,440", manifest.sha256, "gguf: 0.19.0"):
        assert part in words
    for figure in manifest.verification:
        assert figure["stage"] in words
    assert "at most 0.001" in words and "at least 0.9" in words and "0.002916" in words
    assert run("show", str(DATA / FILE))[1].split("sha256")[1] == out.split("sha256")[1]


def test_a_model_in_full_as_json(run: Run) -> None:
    code, out, _ = run("show", "chemdis-9m", "--json")
    found = json.loads(out)
    assert code == 0 and found["manifest"] == json.loads(manifest_path(DATA / FILE).read_text("utf-8")) | {
        "importance": {},
        "fingerprint": {},
        "base": {},
        "files": {},
        "constraint": "",
    }
    assert found["architecture"] == "llama" and found["parameters"] == 9_309_440
    base = json.loads(run("show", "olmo-2-1b", "--json")[1])
    assert base["repo"] == "allenai/OLMo-2-0425-1B" and len(base["revision"]) == 40 and base["pulled"] is None
    assert base["bytes"] == 5_939_687_552 and len(base["files"]) == 2


def test_onnx_models_of_ones_own(run: Run, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIONER_MODELS", str(onnx.parent))
    rows = {row["name"]: row for row in map(json.loads, run("list", "--json")[1].splitlines())}
    row = rows["mine-int8-onnx"]
    assert (row["kind"], row["on_disk"], row["path"], row["bytes"]) == ("tuned", "yes", str(onnx), size(onnx))
    assert run("verify", "mine-int8-onnx")[:2] == (0, f"ok  {onnx}: SHA-256 {digest(onnx)[:12]}… as in "
        f"{onnx.parent}/models.toml and {onnx}/manifest.json\n")  # fmt: skip
    (onnx / "model.onnx").unlink()
    rows = {row["name"]: row for row in map(json.loads, run("list", "--json")[1].splitlines())}
    assert (rows["mine-int8-onnx"]["bytes"], rows["mine-int8-onnx"]["on_disk"]) == (None, "no")


@pytest.mark.parametrize("end", ["", "/"])
def test_an_onnx_model_in_full(run: Run, onnx: Path, end: str) -> None:
    code, out, err = run("show", f"dist/mine-int8-onnx{end}")
    assert (code, err) == (0, []) and "\x1b" not in out
    words = " ".join(out.split())
    for part in (
        "parameters 324", "context 640", "cache grown", "opsets ai.onnx: 21", "com.microsoft.MatMulNBits: 1",
        "inputs past.*.key × 3: f32 [B, 2, past, 4]", "outputs y: f32 [B, 2, past, 4]", digest(onnx), "level int8",
    ):  # fmt: skip
        assert part in words
    found = json.loads(run("show", f"dist/mine-int8-onnx{end}", "--json")[1])
    assert found["path"] == "dist/mine-int8-onnx" and found["bytes"] == size(onnx) and found["parameters"] == 324
    assert found["quantization"] == {"com.microsoft.MatMulNBits": 1} and found["opsets"] == {"ai.onnx": 21}
    assert found["manifest"]["files"] == digests(onnx) and "architecture" not in found


def test_onnx_models_are_verified(run: Run, onnx: Path) -> None:
    code, out, err = run("verify", "dist")
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out.splitlines()] == ["ok  dist/mine-Q8_0.gguf", "ok  dist/mine-int8-onnx"]
    assert run("verify", "dist/mine-int8-onnx/")[0] == 0
    change(onnx / "tokenizer.json")
    for target in ("dist", "dist/mine-int8-onnx"):
        code, _, (line,) = run("verify", target)
        assert code == 1 and line.startswith("bioner-edge: dist/mine-int8-onnx/tokenizer.json: SHA-256 ")
    shutil.rmtree(onnx)
    code, _, (line,) = run("verify", "dist")
    assert code == 1 and line == "bioner-edge: dist/mine-int8-onnx: no such model file"


def test_an_onnx_folder_that_its_list_does_not_know_as_it_is(run: Run, onnx: Path) -> None:
    """Someone converted again: all fits, but not what the list says."""
    (onnx / "tokenizer.json").write_text("[]")
    manifest = Manifest.load(manifest_path(onnx))
    replace(manifest, files=digests(onnx), sha256=digest(onnx)).save(manifest_path(onnx))
    assert run("verify", "dist/mine-int8-onnx")[0] == 0  # nothing but the list of the folder above knows better
    code, _, (line,) = run("verify", "dist")
    assert code == 1 and "dist/mine-int8-onnx: SHA-256 " in line and "but dist/models.toml says " in line


def test_a_file_without_manifest_is_shown(run: Run, dist: Path) -> None:
    (dist / "mine-Q8_0.json").unlink()
    found = json.loads(run("show", "dist/mine-Q8_0.gguf", "--json")[1])
    assert found["manifest"] is None and found["parameters"] == 9_309_440


def test_what_is_shown_cannot_harm_a_terminal(run: Run, dist: Path) -> None:
    record = json.loads((dist / "mine-Q8_0.json").read_text("utf-8"))
    record["license"] = "\x1b]0;owned\x07[red]MIT"
    record["verification"] = [{"stage": ["\x1b[2J"], "figure": {"a": 1}, "at_most": "x"}, {}]
    (dist / "mine-Q8_0.json").write_text(json.dumps(record))
    code, out, _ = run("show", "dist/mine-Q8_0.gguf")
    assert code == 0 and "\x1b" not in out and "\x07" not in out and "[red]MIT" in out


def test_all_is_verified(run: Run) -> None:
    code, out, err = run("verify")
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out.splitlines()] == [
        f"ok  {row.path}" for row in registry.listed_models().values()
    ]


@pytest.mark.parametrize("target", ["dist", "dist/mine-Q8_0.gguf"])
def test_a_file_that_changed(run: Run, dist: Path, target: str) -> None:
    assert run("verify", target)[0] == 0
    change(dist / "mine-Q8_0.gguf")
    code, out, (line,) = run("verify", target)
    assert (code, out) == (1, "") and line.startswith("bioner-edge: dist/mine-Q8_0.gguf: SHA-256 ")


def test_one_line_for_each_that_differs(run: Run, dist: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(dist / "mine-Q8_0.gguf", dist / f"{name}.gguf")
        shutil.copy(dist / "mine-Q8_0.json", dist / f"{name}.json")
    registry.write_list(dist)
    change(dist / "a.gguf")
    (dist / "b.gguf").unlink()
    shutil.copy(dist / "mine-Q8_0.gguf", dist / "bare.gguf")
    code, out, err = run("verify", "dist", "chemdis-9m")
    assert code == 1 and len(out.splitlines()) == 2
    assert [line.split(": ")[1] for line in err] == ["dist/a.gguf", "dist/b.gguf", "dist/bare.gguf"]
    assert err[1].endswith("no such model file")
    assert err[2].endswith("no manifest beside it and not in a list: its hash is not known")


def test_a_list_and_a_manifest_that_say_different_things(run: Run, dist: Path) -> None:
    text = (dist / "models.toml").read_text("utf-8")
    (dist / "models.toml").write_text(text.replace('sha256 = "6', 'sha256 = "7'), "utf-8")
    code, _, (line,) = run("verify", "dist")
    assert code == 1 and "but dist/models.toml says 7" in line
    (dist / "models.toml").write_text("rubbish", "utf-8")
    code, _, (line,) = run("verify", "dist")
    assert code == 1 and "dist/models.toml: the list of models is not TOML" in line


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        ("nope", 2, "unknown model 'nope'; known: chemdis-9m, chemdis-9m-lists, chemdis-9m-onnx, qwen2.5-0.5b, "),
        ("empty", 1, "empty: no model in it"),
        ("qwen2.5-0.5b", 1, "models/qwen2.5-0.5b: not there; fetch it with: bioner-edge models pull qwen2.5-0.5b"),
        ("weights", 1, "weights: not pulled, and not named like a base model: its hashes are not known"),
        ("a.txt", 1, "a.txt: not a GGUF file (it does not start with 'GGUF')"),
    ],
)
def test_what_cannot_be_verified(run: Run, target: str, code: int, told: str) -> None:
    for folder in ("empty", "weights"):
        Path(folder).mkdir()
    Path("weights/model.safetensors").write_bytes(b"")
    Path("a.txt").write_text("text")
    exited, out, (line,) = run("verify", target)
    assert (exited, out) == (code, "") and line.startswith(f"bioner-edge: {told}")


def test_unknown_models_are_told(run: Run) -> None:
    code, _, (line,) = run("show", "nope")
    assert code == 2 and line == (
        "bioner-edge: unknown model 'nope'; known: chemdis-9m, chemdis-9m-lists, chemdis-9m-onnx; "
        "or give the path of a GGUF file or an ONNX folder"
    )


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m bioner_edge models list --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and json.loads(done.stdout)["name"] == "chemdis-9m"


def test_the_help_says_where_a_pull_goes(run: Run) -> None:
    _, out, _ = run("pull", "--help")
    assert f"[default: {FOLDER}]" in " ".join(out.split())


def test_a_pull_goes_where_the_help_says(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Path] = []

    def pull(name: str, to: Path, *_: object, **__: object) -> Path:
        places.append(to)
        return to / name

    monkeypatch.setattr(hub, "pull", pull)
    assert run("pull", "qwen2.5-0.5b")[1] == f"{FOLDER / 'qwen2.5-0.5b'}\n"
    assert run("pull", "qwen2.5-0.5b", "--to", "there")[0] == 0
    assert places == [FOLDER, Path("there")]


def test_listing_needs_neither_the_hub_nor_the_runtime(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib\n"
        "from bioner_edge import cli\n"
        "for words in (['list'], ['show', 'chemdis-9m'], ['verify'], ['pull', '--help']):\n"
        "    sys.argv = ['bioner-edge', 'models', *words]\n"
        "    with contextlib.suppress(SystemExit): cli.main()\n"
        "print(*({name.split('.')[0] for name in sys.modules} & {'huggingface_hub', 'llama_cpp', 'numpy', 'torch'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "", done.stderr
