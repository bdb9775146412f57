"""A folder with an ONNX model: it is whole, it is what its manifest says, and nothing outside of it is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bioner_edge.errors import ModelError
from bioner_edge.models.manifest import Manifest, digest, digests, manifest_path, size
from bioner_edge.models.onnx.folder import Runtime, check, check_confined, check_hashes, is_model, no_model_message

RUNTIME: dict[str, Any] = {
    "context": 2048, "bos": 1, "end_tokens": [2, 0], "bos_token": "<s>", "eos_token": "</s>", "chat_template": None,
    "cache": "shared",
}  # fmt: skip
MANIFEST = Manifest(
    formats=("multi_tag",), labels=("Chemical",), unit="sentence", license="MIT", sha256="0" * 64, level="F32",
    bits_per_weight=32.0, tensor_mix={"f32": 1}, sources={}, versions={},
)  # fmt: skip


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of a protocol buffer: a number below 128, or fewer than 16384 bytes. Numbers are written in two bytes."""
    tag = number << 3 | (0 if isinstance(value, int) else 2)
    head = bytes([tag & 127 | 128, tag >> 7])
    if isinstance(value, int):
        return head + bytes([value])
    value = value.encode() if isinstance(value, str) else value
    return head + bytes([len(value) & 127 | 128, len(value) >> 7]) + value


def tensor(location: str | bytes | None = None, offset: int = 0, name: str = "w") -> bytes:
    """Six float32, in the graph or elsewhere."""
    head = field(1, 2) + field(1, 3) + field(2, 1) + field(8, name)
    if location is None:
        return head + field(9, bytes(24))
    entries = {"location": location, "offset": str(offset), "length": "24"}
    return head + b"".join(field(13, field(1, k) + field(2, v)) for k, v in entries.items()) + field(14, 1)


# A graph that holds a tensor: as an initializer, deep in a subgraph, in a function.
GRAPHS: dict[str, Callable[[bytes], bytes]] = {
    "initializer": lambda t: field(7, field(5, t)),
    "subgraph": lambda t: field(7, field(1, field(5, field(6, field(1, field(5, field(5, t))))))),
    "function": lambda t: field(7, b"") + field(25, field(7, field(5, field(5, t)))),
}


def graph(tensor: bytes, place: str = "initializer") -> bytes:
    return field(1, 10) + GRAPHS[place](tensor) + field(8, field(2, 21))


def initializers(*tensors: bytes) -> bytes:
    return field(1, 10) + field(7, b"".join(field(5, t) for t in tensors)) + field(8, field(2, 21))


def seal(folder: Path, **changes: Any) -> Path:
    """Write the manifest of a folder as it is."""
    files = digests(folder)
    replace(MANIFEST, **{"files": files, "sha256": digest(folder), **changes}).save(folder / "manifest.json")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model, with tensors in a file of their own."""
    path = tmp_path / "mine-F32-onnx"
    path.mkdir()
    (path / "model.onnx").write_bytes(initializers(tensor("model.onnx.data"), tensor("model.onnx.data", 4096, "v")))
    (path / "model.onnx.data").write_bytes(bytes(4120))
    (path / "tokenizer.json").write_text("{}")
    (path / "runtime.json").write_text(json.dumps(RUNTIME))
    return seal(path)


def refused(act: Callable[[Path], object], folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        act(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


_opened: list[str] | None = None
_hooked = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir"):
        _opened.append(os.fspath(arguments[0]) if not isinstance(arguments[0], int) else "")


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What is opened while a test runs. (Such a hook cannot be taken away again.)"""
    global _opened, _hooked
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    _opened = []
    yield _opened
    _opened = None


def test_a_sound_folder(folder: Path, opened: list[str]) -> None:
    facts = check(folder)
    assert facts.manifest == Manifest.load(folder / "manifest.json") == check_hashes(folder)
    assert facts.runtime == Runtime(2048, 1, (2, 0), "<s>", "</s>", None, "shared")
    assert (facts.weights.total, facts.weights.bits_per_weight) == (12, 32.0)
    assert check_confined(folder) == facts.graph and is_model(folder)
    names = ("model.onnx", "model.onnx.data", "runtime.json", "tokenizer.json")
    assert facts.bytes == size(folder) == sum((folder / name).stat().st_size for name in names)
    assert {Path(name).name for name in opened} == {*names, "manifest.json"}


def test_the_digest_is_that_of_what_sha256sum_prints(folder: Path) -> None:
    names = sorted(["model.onnx", "model.onnx.data", "tokenizer.json", "runtime.json"])
    lines = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "notes.txt").write_text("no part of the model")
    assert digest(folder) == hashlib.sha256(lines.encode()).hexdigest() == check(folder).manifest.sha256
    assert digest(folder / "model.onnx") == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest_path(folder) == folder / "manifest.json"
    assert manifest_path(folder.parent / "a.gguf") == folder.parent / "a.json"


def test_a_small_model_has_no_file_of_data(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(initializers(tensor()))
    (folder / "model.onnx.data").unlink()
    assert check(seal(folder)).weights.total == 6


# --- What a graph refers to

TRICKS = [
    "", ".", "..", "/etc/passwd", "../model.onnx.data", "../../secret", "./model.onnx.data", "sub/../model.onnx.data",
    "sub/model.onnx.data", "model.onnx.data/", "//host/share", "\\\\host\\share", "..\\secret", "C:\\secret",
    "C:secret", "\\\\?\\C:\\secret", "file:///etc/passwd", "model.onnx.data\0", "model.onnx.data\0/../../secret",
    "\0", "~/secret", "*/_ORT_MEM_ADDR_/*", "model.onnx", "manifest.json", "secret", "link", "MODEL.ONNX.DATA",
    "model.onnx.data ", "model.onnx.data.", "model.onnx.data::$DATA", "/dev/stdin", "/proc/self/environ",
    "\x1b[2Jx", "a\nb", "x" * 120, "é",
]  # fmt: skip


@pytest.mark.parametrize("place", GRAPHS)
@pytest.mark.parametrize("location", TRICKS)
def test_data_elsewhere_are_not_read(folder: Path, opened: list[str], location: str, place: str) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"secret" * 1000)
    (folder / "secret").write_bytes(bytes(4096))
    (folder / "sub").mkdir()
    (folder / "sub" / "model.onnx.data").write_bytes(bytes(4096))
    (folder / "link").symlink_to(secret)
    (folder / "model.onnx").write_bytes(graph(tensor(location), place))
    opened.clear()
    for act in (check_confined, check_hashes, check):
        told = refused(act, folder)
        assert f"{folder}/model.onnx: the data of 'w' lie in {location[:100]!r}, not in model.onnx.data" in told
    assert {Path(path).parent for path in opened} == {folder}
    assert {Path(path).name for path in opened} <= {"model.onnx", "manifest.json"}


def test_a_location_that_is_no_text(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(graph(tensor(b"model.onnx.data\xff")))
    assert "lie in 'model.onnx.data\N{REPLACEMENT CHARACTER}'" in refused(check_confined, folder)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(location=st.text(st.characters(codec="utf-8"), max_size=30) | st.text("./\\model.onnx.dat", max_size=20))
def test_any_location(folder: Path, location: str) -> None:
    (folder / "model.onnx").write_bytes(graph(tensor(location)))
    if location == "model.onnx.data":
        check_confined(folder)
    else:
        assert "not in model.onnx.data" in refused(check_confined, folder)


@pytest.mark.parametrize(
    ("offsets", "length", "told"),
    [
        ([8], 31, "model.onnx.data: incomplete: it has 31 bytes, data end at 32"),
        ([10**15], 31, f"incomplete: it has 31 bytes, data end at {10**15 + 24}"),
        ([0], 0, "incomplete: it has 0 bytes"),
        ([0, 23], 99, "the data of two tensors overlap at byte 23"),
        ([8, 9, 8], 99, "overlap at byte 9"),
    ],
)
def test_data_that_are_not_there(folder: Path, offsets: list[int], length: int, told: str) -> None:
    tensors = [tensor("model.onnx.data", offset, f"t{n}") for n, offset in enumerate(offsets)]
    (folder / "model.onnx").write_bytes(initializers(*tensors))
    (folder / "model.onnx.data").write_bytes(bytes(length))
    assert told in refused(check_confined, folder) and told in refused(check, seal(folder))


def test_tied_tensors_share_their_data(folder: Path) -> None:
    tensors = [tensor("model.onnx.data", offset, f"t{n}") for n, offset in enumerate((8, 32, 8))]
    (folder / "model.onnx").write_bytes(initializers(*tensors))
    assert check(seal(folder)).weights.total == 12


# --- What lies in the folder

FILES = ["model.onnx", "model.onnx.data", "tokenizer.json", "runtime.json", "manifest.json"]


def swap(folder: Path, name: str, kind: str) -> None:
    """Put something else in the place of a file, a copy of which lies outside."""
    path, outside = folder / name, folder.parent / "outside"
    outside.mkdir()
    os.replace(path, outside / name)
    if kind == "link out":
        path.symlink_to(outside / name)
    elif kind == "relative link out":
        path.symlink_to(f"../outside/{name}")
    elif kind == "link by a link":
        (folder / "a").symlink_to(outside)
        path.symlink_to(f"a/{name}")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "ring":
        path.symlink_to(name)
    elif kind == "link to nothing":
        path.symlink_to("nothing")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "kind",
    ["link out", "relative link out", "link by a link", "fifo", "folder", "device", "ring", "link to nothing", "gone"],
)
def test_only_files_of_the_folder_are_read(folder: Path, opened: list[str], name: str, kind: str) -> None:
    swap(folder, name, kind)
    opened.clear()
    told = refused(check, folder)
    expected = {
        "link out": "a link out of the folder: not read", "relative link out": "a link out of the folder",
        "link by a link": "a link out of the folder", "device": "a link out of the folder",
        "fifo": "not a regular file: not read", "folder": "not a regular file: not read",
    }.get(kind, "missing|a link loop|Too many levels|without manifest|no model in it")  # fmt: skip
    assert re.search(expected, told) and str(folder) in told
    inside = {path for path in opened if Path(path).parent == folder}
    assert [path for path in opened if path not in inside and path != str(folder)] == []
    assert str(folder / name) not in inside


def test_links_inside_the_folder_and_to_it_are_followed(folder: Path) -> None:
    os.replace(folder / "tokenizer.json", folder / "real.json")
    (folder / "tokenizer.json").symlink_to("real.json")
    (folder.parent / "alias").symlink_to(folder)
    assert check(folder.parent / "alias").weights.total == 12


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_file_that_changed(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    told = refused(check_hashes, folder)
    if name != "model.onnx":  # which is read before it is hashed, and may be no graph any more
        assert re.search(rf"{name}: SHA-256 \w+…, but {folder}/manifest\.json says \w+…; the file was changed", told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": {}}, "manifest.json: it has no hash of the model's files; convert the model again"),
        ({"files": {"runtime.json": "0" * 64}}, "manifest.json: it has no hash of model.onnx; convert"),
        ({"sha256": "1" * 64}, "manifest.json: 'sha256' is 111111111111…, but of 'files' it would be "),
    ],
)
def test_a_manifest_that_does_not_fit(folder: Path, change: dict[str, Any], told: str) -> None:
    assert told in refused(check_hashes, seal(folder, **change)) and told in refused(check, folder)


def test_a_manifest_must_name_what_is_loaded_and_no_more(folder: Path) -> None:
    hashes = digests(folder)
    for name in hashes:
        seal(folder, files={key: value for key, value in hashes.items() if key != name})
        assert f"it has no hash of {name}" in refused(check, folder)
    seal(folder, files={**hashes, "libcustom.so": "0" * 64})
    told = "manifest.json: unknown file 'libcustom.so'; known: model.onnx, model.onnx.data, runtime.json, tokenizer"
    assert told in refused(check, folder)


OUTSIDE = ("../a", "/a", "a\\b", "C:a", "..", "", "a\nb")


@pytest.mark.parametrize(
    "files", [[], {"model.onnx": "x"}, {"model.onnx": None}, *({name: "0" * 64} for name in OUTSIDE)]
)
def test_names_in_a_manifest_stay_in_the_folder(folder: Path, files: object) -> None:
    record = json.loads((folder / "manifest.json").read_text()) | {"files": files}
    (folder / "manifest.json").write_text(json.dumps(record))
    assert "malformed manifest: 'files' must be SHA-256 by file name" in refused(check, folder)


# --- runtime.json


def test_runtime_json_round_trip(folder: Path) -> None:
    runtime = Runtime.load(folder)
    assert runtime.to_json() == RUNTIME
    other = {**RUNTIME, "bos": None, "bos_token": "", "chat_template": "{{ é }}", "cache": "grown"}
    (folder / "runtime.json").write_text(json.dumps(other))
    assert Runtime.load(folder).to_json() == other


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"context": 0}, "'context' must be a number of positions"),
    ({"context": -1}, "'context' must be a number"),
    ({"context": 2.0}, "'context' must be a number"),
    ({"context": True}, "'context' must be a number"),
    ({"context": 1 << 31}, "'context' must be a number"),
    ({"context": None}, "'context' must be a number"),
    ({"bos": -1}, "'bos' must be a token id or null"),
    ({"bos": "1"}, "'bos' must be a token id or null"),
    ({"bos": False}, "'bos' must be a token id or null"),
    ({"end_tokens": []}, "'end_tokens' must be a list of token ids"),
    ({"end_tokens": 2}, "'end_tokens' must be a list of token ids"),
    ({"end_tokens": [2, None]}, "'end_tokens' must be a list of token ids"),
    ({"end_tokens": [True]}, "'end_tokens' must be a list of token ids"),
    ({"bos_token": None}, "'bos_token' must be a string"),
    ({"eos_token": 1}, "'eos_token' must be a string"),
    ({"chat_template": []}, "'chat_template' must be a string or null"),
    ({"cache": "both"}, "'cache' must be shared or grown"),
    ({"cache": []}, "'cache' must be shared or grown"),
    ({"threads": 4}, "unknown key 'threads'; known: context, bos, end_tokens"),
]


@pytest.mark.parametrize(("change", "told"), WRONG)
def test_a_malformed_runtime_json(folder: Path, change: dict[str, Any], told: str) -> None:
    (folder / "runtime.json").write_text(json.dumps({**RUNTIME, **change}))
    for act in (Runtime.load, lambda path: check(seal(path))):
        assert f"{folder}/runtime.json: {told}" in refused(act, folder)


@pytest.mark.parametrize("key", RUNTIME)
def test_nothing_may_be_left_out_of_runtime_json(folder: Path, key: str) -> None:
    (folder / "runtime.json").write_text(json.dumps({k: v for k, v in RUNTIME.items() if k != key}))
    assert f"runtime.json: {key!r} must be " in refused(Runtime.load, folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b'{"bos_token": "\\ud800"}', b"[]", b"3"])
def test_what_is_no_runtime_json(folder: Path, content: bytes) -> None:
    (folder / "runtime.json").write_bytes(content)
    assert re.search(r"runtime\.json: (not JSON|it must be an object); convert", refused(Runtime.load, folder))


def test_runtime_json_is_not_read_where_it_is_huge(folder: Path) -> None:
    with (folder / "runtime.json").open("wb") as stream:
        stream.truncate(1 << 40)
    assert "runtime.json: more than 16777216 bytes" in refused(Runtime.load, folder)
    (folder / "runtime.json").unlink()
    assert "runtime.json: cannot be read: No such file" in refused(Runtime.load, folder)


# --- What is no such folder


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["genai_config.json", "model.onnx"], "a model for onnxruntime-genai, .*bioner-edge convert --to onnx"),
        (["model.onnx", "config.json"], "an ONNX model without manifest.json; .*bioner-edge convert --to onnx"),
        (["config.json", "model.safetensors"], "a checkpoint; convert it with: bioner-edge convert --base .*folder"),
        (["a.safetensors"], "a checkpoint"),
        (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter; .*--base BASE --adapter .*folder"),
        (["manifest.json"], "folder/model.onnx: missing; convert the model again"),
        (["a.gguf", "b.gguf", "models.toml"], "a folder of models; give one of them: a.gguf, b.gguf$"),
        (["a.gguf", "b.gguf", "c.gguf", "d.gguf", "e.gguf"], "one of them: a.gguf, b.gguf, c.gguf and 2 more$"),
        (["x-onnx/model.onnx", "x-onnx/manifest.json", "models.toml"], "give one of them: x-onnx$"),
        ([], "no model in it; give a GGUF file, or a folder that bioner-edge convert --to onnx wrote"),
        (["models.toml", "notes.txt"], "no model in it"),
    ],
)
def test_what_another_folder_is(tmp_path: Path, names: list[str], told: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert re.search(told, no_model_message(folder)) and not is_model(folder)
    for act in (check_hashes, check):
        assert refused(act, folder) == no_model_message(folder)
