"""Which file a name means, and that it is the file that was meant."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models import models_toml, registry
from bioner_edge.models.manifest import digest, digests
from bioner_edge.models.registry import Manifest, bases, entry, find, listed_models, manifest_path, write_list


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def gguf(**more: str) -> bytes:
    """The smallest sound GGUF: no tensors, one key, and what is given (`__` in a key is a dot)."""
    keys = {b"general.architecture": b"llama", **{k.replace("__", ".").encode(): v.encode() for k, v in more.items()}}
    data = b"GGUF" + struct.pack("<I", 3) + u64(0) + u64(len(keys))
    for key, value in keys.items():
        data += u64(len(key)) + key + struct.pack("<I", 8) + u64(len(value)) + value
    return data + bytes(-len(data) % 32)


GGUF = gguf()
DIGEST = hashlib.sha256(GGUF).hexdigest()
MANIFEST = Manifest(
    formats=("multi_tag", "conv_term"),
    labels=("Chemical", "Disease"),
    unit="sentence",
    license="Apache-2.0",
    sha256=DIGEST,
    level="Q8_0",
    bits_per_weight=8.5,
    tensor_mix={"Q8_0": 3},
    sources={"model.safetensors": "0" * 64},
    versions={"gguf": "0.19.0"},
    verification=({"stage": "token ids", "figure": 0.0, "at_most": 0.0},),
    guidelines={"Chemical": "a substance"},
    training={"seed": 1},
    importance={"texts": ["a.txt"], "tokens": 512},
    fingerprint={"perplexity": 12.5},
    base={"model": "tiny", "adapter": "drugs"},
    files={"model.onnx": "1" * 64},
)


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protocol buffer: a number below 128, or fewer than 128 bytes."""
    return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value


def onnx(folder: Path, **changes: Any) -> Path:
    """The smallest sound ONNX model: one weight, and the files that go with it."""
    folder.mkdir()
    weight = field(2, 1) + field(8, b"w") + field(9, bytes(4))
    graph = field(1, 10) + field(7, field(5, weight)) + field(8, field(2, 21))
    runtime = {"context": 8, "bos": None, "end_tokens": [0], "bos_token": "", "eos_token": "", "chat_template": None}
    (folder / "model.onnx").write_bytes(graph)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "runtime.json").write_text(json.dumps({**runtime, "cache": "shared"}))
    sealed = replace(MANIFEST, level="int8", **{"files": digests(folder), "sha256": digest(folder), **changes})
    sealed.save(manifest_path(folder))
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with one listed model, `small`."""
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small.gguf").write_bytes(GGUF)
    MANIFEST.save(tmp_path / "data" / "small.json")
    table(tmp_path)
    return tmp_path


def table(package: Path, default: str | None = "small", **changes: object) -> None:
    row = {
        "file": "small.gguf",
        "sha256": DIGEST,
        "formats": ["multi_tag", "conv_term"],
        "license": "MIT",
        "description": "d",
        **changes,
    }
    lines = [f"default = {json.dumps(default)}"] if default else []
    lines += ["[models.small]", 'labels = ["A"]', *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    (package / "models.toml").write_text("\n".join(lines), "utf-8")


def test_manifest_round_trip(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == MANIFEST
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_what_a_manifest_may_leave_out(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path / "m.json")
    record = json.loads((tmp_path / "m.json").read_text("utf-8"))
    empty = {"guidelines": {}, "training": {}, "importance": {}, "fingerprint": {}, "base": {}, "files": {}}
    for key in ("verification", *empty):
        del record[key]
    (tmp_path / "m.json").write_text(json.dumps(record))
    assert Manifest.load(tmp_path / "m.json") == replace(MANIFEST, verification=(), **empty)


def test_a_model_that_is_not_tuned_has_no_formats_and_no_labels(tmp_path: Path) -> None:
    plain = replace(MANIFEST, formats=(), labels=())
    plain.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": "multi_tag"}, "'formats' must be a list of strings"),
        ({"formats": {"multi_tag": 1}}, "'formats' must be a list of strings"),
        ({"format": "multi_tag"}, "unknown key 'format'; known: formats, labels"),
        ({"labels": [1]}, "'labels' must be a list of strings"),
        ({"labels": [["Chemical"]]}, "'labels' must be a list of strings"),
        ({"license": ["MIT"]}, "'license' must be a string"),
        ({"level": None}, "'level' must be a string"),
        ({"unit": "page"}, "'unit' must be sentence or document"),
        ({"unit": []}, "'unit' must be sentence or document"),
        ({"sha256": "A" * 64}, "'sha256' must be 64 hexadecimal digits"),
        ({"bits_per_weight": 0}, "'bits_per_weight' must be a positive number"),
        ({"bits_per_weight": True}, "'bits_per_weight' must be a positive number"),
        ({"bits_per_weight": float("nan")}, "'bits_per_weight' must be a positive number"),
        ({"bits_per_weight": float("inf")}, "'bits_per_weight' must be a positive number"),
        ({"bits_per_weight": "8"}, "'bits_per_weight' must be a positive number"),
        ({"tensor_mix": {"Q8_0": "3"}}, "'tensor_mix' must be counts by type"),
        ({"tensor_mix": {"Q8_0": True}}, "'tensor_mix' must be counts by type"),
        ({"sources": ["a"]}, "'sources' must be hashes by name"),
        ({"versions": {"gguf": 1}}, "'versions' must be versions by name"),
        ({"verification": {}}, "'verification' must be a list of objects"),
        ({"guidelines": ["a"]}, "'guidelines' must be texts by label"),
        ({"verification": ["ok"]}, "'verification' must be a list of objects"),
        ({"training": 1}, "'training' must be an object"),
        ({"importance": []}, "'importance' must be an object"),
        ({"fingerprint": "abc"}, "'fingerprint' must be an object"),
        ({"base": ["Qwen/Qwen2.5-0.5B"]}, "'base' must be an object"),
        ({"colour": "red"}, "unknown key 'colour'; known: formats, labels"),
        ({"files": []}, "'files' must be SHA-256 by file name"),
        ({"files": {"a/b": "0" * 64}}, "'files' must be SHA-256 by file name"),
    ],
)
def test_malformed_manifests(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    MANIFEST.save(tmp_path / "m.json")
    record = json.loads((tmp_path / "m.json").read_text("utf-8"))
    (tmp_path / "m.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(ModelError) as caught:
        Manifest.load(tmp_path / "m.json")
    assert f"m.json: malformed manifest: {message}" in str(caught.value)


DEEP = '{"training": ' + '{"a":' * 50_000 + "1" + "}" * 50_001


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "\0",
        "[]",
        '{"formats": ["x"]}',
        DEEP,
        '{"license": "\\ud800"}',
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ModelError, match=r"m\.json: .*; convert the model again"):
        Manifest.load(tmp_path / "m.json")


def test_a_manifest_is_not_read_where_it_is_huge(tmp_path: Path) -> None:
    with (tmp_path / "m.json").open("wb") as stream:
        stream.truncate(1 << 40)  # a sparse file
    with pytest.raises(ModelError, match=r"m\.json: more than 16777216 bytes, not a manifest; convert the model again"):
        Manifest.load(tmp_path / "m.json")


@pytest.mark.parametrize("name", [None, "small"])
def test_a_listed_model(package: Path, name: str | None) -> None:
    assert find(name) == (package / "data" / "small.gguf", MANIFEST)


def test_a_listed_file_that_changed(package: Path) -> None:
    table(package, sha256="1" * 64)
    with pytest.raises(ModelError) as caught:
        find("small")
    told = f"small.gguf: SHA-256 {DIGEST[:12]}…, but {package}/models.toml says 111111111111…; the file was changed"
    assert told in str(caught.value)


def test_a_listed_model_needs_its_manifest(package: Path) -> None:
    (package / "data" / "small.json").unlink()
    with pytest.raises(ModelError, match=r"small\.json: the manifest of a listed model is missing"):
        find("small")


def test_an_unknown_name(package: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find("large")
    assert str(caught.value) == "unknown model 'large'; known: small; or give the path of a GGUF file or an ONNX folder"


def test_no_model_is_bundled(package: Path) -> None:
    table(package, default=None)
    with pytest.raises(ModelError, match="no model is bundled with this installation; give the path of a GGUF file or"):
        find(None)


def test_a_path_without_manifest(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(GGUF)
    assert find(str(path)) == (path, None)


def test_a_path_with_manifest(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(GGUF)
    MANIFEST.save(manifest_path(path))
    monkeypatch.chdir(tmp_path)
    assert find("mine.gguf") == (Path("mine.gguf"), MANIFEST)
    path.write_bytes(GGUF + bytes(1))
    with pytest.raises(ModelError, match=rf"mine\.gguf: SHA-256 .*…, but .*mine\.json says {DIGEST[:12]}…"):
        find("mine.gguf")


@pytest.mark.parametrize("name", ["gone.gguf", "some/where"])
def test_a_path_to_nothing(package: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: no such model file"):
        find(name)


def test_a_path_to_something_else(package: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"PK\3\4 a zip file")
    with pytest.raises(ModelError, match="not a GGUF file"):
        find(str(tmp_path / "mine.gguf"))


def test_an_onnx_folder(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx(tmp_path / "mine-int8-onnx")
    manifest = Manifest.load(path / "manifest.json")
    assert find(str(path)) == find(f"{path}/") == (path, manifest) and manifest.sha256 == digest(path)
    monkeypatch.chdir(tmp_path)
    assert find("mine-int8-onnx") == (Path("mine-int8-onnx"), manifest)
    (path / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match=r"tokenizer\.json: SHA-256 .*…, but .*manifest\.json says"):
        find("mine-int8-onnx/")


def test_a_file_of_an_onnx_folder_is_no_model(package: Path, tmp_path: Path) -> None:
    path = onnx(tmp_path / "mine")
    with pytest.raises(ModelError, match=rf"mine/model\.onnx: one file of an ONNX model; give the folder {path}"):
        find(str(path / "model.onnx"))
    manifest_path(path).unlink()
    with pytest.raises(ModelError, match=r"mine: an ONNX model without manifest\.json; convert .* --to onnx"):
        find(str(path))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", "a checkpoint; convert it with: bioner-edge convert --base .*there"),
        ("a.gguf", "a folder of models; give one of them: a.gguf"),
        ("notes.txt", "no model in it"),
    ],
)
def test_a_folder_of_something_else(package: Path, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / name).write_text("")
    with pytest.raises(ModelError, match=told):
        find(str(tmp_path / "there"))


def test_a_listed_onnx_folder(package: Path) -> None:
    path = onnx(package / "data" / "small-onnx")
    table(package, file="small-onnx", sha256=digest(path))
    assert find("small") == (path, Manifest.load(path / "manifest.json"))
    table(package, file="small-onnx", sha256="1" * 64)
    told = rf"small-onnx: SHA-256 {digest(path)[:12]}…, but {package}/models\.toml says 111111111111…; the file was"
    with pytest.raises(ModelError, match=told):
        find("small")
    table(package, file="gone-onnx", sha256=digest(path))
    with pytest.raises(ModelError, match="gone-onnx: no such model file"):
        find("small")


def test_what_the_list_says(package: Path) -> None:
    assert (listed_models()["small"].formats, listed_models()["small"].labels) == (("multi_tag", "conv_term"), ("A",))


ROW = "[models.small] "
ROWS: list[tuple[dict[str, object], str]] = [
    ({"file": "../small.gguf"}, ROW + "'file' must be a file in the list's folder, relative and without '..'"),
    ({"file": "/etc/passwd"}, ROW + "'file' must be a file in the list's folder"),
    ({"file": "a/../../b.gguf"}, ROW + "'file' must be a file in the list's folder"),
    ({"file": "..\\b.gguf"}, ROW + "'file' must be a file in the list's folder"),
    ({"file": "C:b.gguf"}, ROW + "'file' must be a file in the list's folder"),
    ({"file": ""}, ROW + "'file' must be a file in the list's folder"),
    ({"file": "a\nb"}, ROW + "'file' must be a file in the list's folder"),
    ({"file": ["small.gguf"]}, ROW + "'file' must be a file in the list's folder"),
    ({"sha256": "1"}, ROW + "'sha256' must be 64 hexadecimal digits"),
    ({"formats": "multi_tag"}, ROW + "'formats' must be a list of strings"),
    ({"formats": [7]}, ROW + "'formats' must be a list of strings"),
    ({"license": 3}, ROW + "'license' must be a string"),
    ({"colour": "red"}, ROW + "unknown key 'colour'; known: file, sha256, formats, labels, license, description"),
]


@pytest.mark.parametrize(("change", "told"), ROWS)
def test_a_row_that_cannot_be_read(package: Path, change: dict[str, object], told: str) -> None:
    table(package, **change)
    with pytest.raises(ModelError) as caught:
        listed_models()
    assert f"{package}/models.toml: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[models.small]\nfile = 'x'", "[models.small] 'sha256' must be 64 hexadecimal digits"),
        ("models = 3", "'models' must be rows [models.NAME]"),
        ("models.small = 3", "[models.small] must be a table"),
        ("[models.'a/b']", "[models.a/b] the name must be printable, without slashes"),
        ("[models.'']", "[models.] the name must be printable"),
        ("default = 3", "'default' must be a model's name"),
        ("[model.small]", "unknown key 'model'; known: default, models, bases"),
        ("[bases.b]\nrepo = 'no-owner'", "[bases.b] 'repo' must be OWNER/NAME on the hub"),
        ("[bases.b]\nrepo = '../b'", "[bases.b] 'repo' must be OWNER/NAME on the hub"),
        ("[bases.b]\nrepo = 'a/b'\nlicense = 1", "[bases.b] 'license' must be a string"),
        ("a = " + "[" * 50_000, "the list of models is not TOML"),
    ],
)
def test_a_list_of_other_things(package: Path, content: str, told: str) -> None:
    (package / "models.toml").write_text(content)
    with pytest.raises(ModelError) as caught:
        listed_models()
    assert f"{package}/models.toml: {told}" in str(caught.value)


BASE = """[bases.b]
repo = "lab/b"
license = "MIT"
architecture = "LlamaForCausalLM"
description = "d"
gated = false
"""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('revision = "main"', "'revision' must be 40 hexadecimal digits"),
        ("bytes = 0", "'bytes' must be a number of bytes"),
        ("bytes = true", "'bytes' must be a number of bytes"),
        ('files = {"../a" = "00"}', "'files' must be SHA-256 by file name"),
        ('files = {"a" = "00"}', "'files' must be SHA-256 by file name"),
        ("files = []", "'files' must be SHA-256 by file name"),
    ],
)
def test_a_base_model_that_cannot_be_read(package: Path, line: str, told: str) -> None:
    (package / "models.toml").write_text(BASE)
    assert (bases()["b"].revision, bases()["b"].bytes, bases()["b"].files) == (None, None, {})
    (package / "models.toml").write_text(BASE + line)
    with pytest.raises(ModelError) as caught:
        bases()
    assert f"[bases.b] {told}" in str(caught.value)


def test_a_list_that_cannot_be_read(package: Path) -> None:
    (package / "models.toml").write_text("default =")
    with pytest.raises(ModelError, match=r"models\.toml: the list of models is not TOML"):
        find(None)
    (package / "models.toml").unlink()
    (package / "models.toml").mkdir()
    with pytest.raises(ModelError, match=r"models\.toml: the list of models cannot be read: Is a directory"):
        find(None)


def test_a_base_model_is_no_model(package: Path) -> None:
    with (package / "models.toml").open("a") as stream:
        stream.write("\n" + BASE)
    with pytest.raises(ModelError, match=r"unknown model 'b'; .*; 'b' is a base model: pull and convert it"):
        find("b")


def test_without_llama_cpp_the_default_is_a_model_that_runs_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.default() == "chemdis-9m"
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert registry.default() == registry.default("multi_tag") == "chemdis-9m-onnx"
    assert registry.default("multi_code") == "chemdis-9m-lists"  # only a GGUF file knows it: that one is named then


@pytest.fixture
def own(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of converted files, which $BIONER_MODELS names; it has no list yet."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "mine-Q4_0.gguf").write_bytes(GGUF)
    replace(MANIFEST, level="Q4_0", formats=("multi_code",)).save(folder / "mine-Q4_0.json")
    monkeypatch.setenv("BIONER_MODELS", str(folder))
    return folder


def test_a_list_of_ones_own(own: Path) -> None:
    write_list(own)
    assert find("mine-Q4_0")[0] == own / "mine-Q4_0.gguf" and find("small")[0].name == "small.gguf"
    assert list(listed_models()) == ["small", "mine-Q4_0"] and registry.default() == "small"
    assert registry.default("multi_code") == "mine-Q4_0"  # no bundled one writes it
    (own / "mine-Q4_0.gguf").write_bytes(GGUF + bytes(1))
    with pytest.raises(ModelError, match=rf"mine-Q4_0\.gguf: SHA-256 .*…, but {own}/models\.toml says {DIGEST[:12]}…"):
        find("mine-Q4_0")


def test_a_listed_file_of_ones_own_needs_its_manifest(own: Path) -> None:
    write_list(own)
    (own / "mine-Q4_0.json").unlink()
    with pytest.raises(ModelError, match=r"mine-Q4_0\.json: the manifest .* is missing; convert the model again"):
        find("mine-Q4_0")


def test_ones_own_list_shadows_nothing_and_decides_nothing(own: Path, package: Path) -> None:
    row = entry("small", own / "mine-Q4_0.gguf", MANIFEST, "d")
    (own / "models.toml").write_text(row)
    with pytest.raises(ModelError, match=r"dist/models\.toml: \[models\.small\] bioner-edge has a model of this name"):
        listed_models()
    with (package / "models.toml").open("a") as stream:
        stream.write("\n" + BASE)
    (own / "models.toml").write_text(row.replace("models.small", "models.b"))
    with pytest.raises(ModelError, match=r"\[models\.b\] bioner-edge has a model of this name; choose another"):
        listed_models()
    for line, key in (('default = "x"\n', "default"), (BASE, "bases")):
        (own / "models.toml").write_text(line)
        with pytest.raises(ModelError, match=f"dist/models.toml: unknown key '{key}'; known: models"):
            listed_models()


def test_a_list_of_ones_own_that_is_not_there(own: Path) -> None:
    with pytest.raises(ModelError, match=r"dist/models\.toml: the list of models cannot be read: No such file"):
        find("small")


@pytest.mark.parametrize("name", ["mine", "mine.1", "über mein", 'a"b', "x]\t".strip()])
def test_an_entry_reads_back(package: Path, tmp_path: Path, name: str) -> None:
    odd = replace(MANIFEST, labels=('Che"mical', "Dis\\ease", "a\x7fb", "é\n"), license="Llama 3.2 \u2028 license")
    (tmp_path / "models.toml").write_text(entry(name, tmp_path / "m.gguf", odd, "two\nlines  of it"), "utf-8")
    row = models_toml.read(tmp_path / "models.toml", tmp_path).models[name]
    assert (row.path, row.sha256, row.labels) == (tmp_path / "m.gguf", DIGEST, odd.labels)
    assert (row.formats, row.license, row.description) == (odd.formats, odd.license, "two lines of it")


@pytest.mark.parametrize(("name", "file"), [("a/b", "m.gguf"), ("", "m.gguf"), ("a\nb", "m.gguf"), ("a", "m\n.gguf")])
def test_an_entry_that_cannot_be(tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        entry(name, tmp_path / file, MANIFEST, "d")


def test_a_list_is_written_from_manifests(own: Path) -> None:
    (own / "adapter.gguf").write_bytes(gguf(general__type="adapter"))
    MANIFEST.save(own / "adapter.json")
    (own / "bare.gguf").write_bytes(GGUF)
    assert write_list(own) == own / "models.toml"
    row = listed_models()["mine-Q4_0"]
    assert (row.formats, row.description) == (
        ("multi_code",),
        "Chemical, Disease as multi_code; Q4_0, 8.50 bits per weight",
    )
    assert set(listed_models()) == {"small", "mine-Q4_0"}
    text = (own / "models.toml").read_text("utf-8").replace("models.mine-Q4_0", "models.drugs")
    (own / "models.toml").write_text(text.replace(row.description, "Mine"), "utf-8")
    (own / "plain-F16.gguf").write_bytes(GGUF)
    replace(MANIFEST, formats=(), labels=(), level="F16", bits_per_weight=16.0).save(own / "plain-F16.json")
    write_list(own)  # a name and a description that someone wrote stay
    assert {name: row.description for name, row in listed_models().items() if name != "small"} == {
        "drugs": "Mine",
        "plain-F16": "not tuned; F16, 16.00 bits per weight",
    }
    (own / "drugs.gguf").write_bytes(GGUF)  # its stem is the name of another
    replace(MANIFEST, labels=()).save(own / "drugs.json")
    write_list(own)
    assert {name: row.file for name, row in listed_models().items() if row.folder == own} == {
        "drugs": "mine-Q4_0.gguf",
        "drugs.gguf": "drugs.gguf",
        "plain-F16": "plain-F16.gguf",
    }
    for name in ("mine-Q4_0", "drugs"):
        (own / f"{name}.gguf").unlink()
    write_list(own)
    assert list(listed_models()) == ["small", "plain-F16"] and not list(own.glob("*.partial"))


def test_onnx_folders_are_listed_beside_files(own: Path) -> None:
    onnx(own / "mine-int8-onnx")
    onnx(own / "mine-Q4_0", labels=())  # called as a file is
    for name in ("model.onnx", "manifest.json"):  # half a model is none
        (own / name[:5]).mkdir()
        (own / name[:5] / name).write_text("")
    onnx(own / "v1.5", formats=())
    write_list(own)
    rows = {name: row for name, row in listed_models().items() if row.folder == own}
    assert {name: row.file for name, row in rows.items()} == {
        "mine-Q4_0": "mine-Q4_0",
        "mine-Q4_0.gguf": "mine-Q4_0.gguf",
        "mine-int8-onnx": "mine-int8-onnx",
        "v1.5": "v1.5",
    }
    assert rows["mine-int8-onnx"].description == "Chemical, Disease as multi_tag, conv_term; int8, 8.50 bits per weight"
    for name, row in rows.items():
        assert find(name) == (row.path, Manifest.load(manifest_path(row.path)))
        assert row.sha256 == digest(row.path)
    text = (own / "models.toml").read_text("utf-8").replace("models.mine-int8-onnx", "models.drugs")
    (own / "models.toml").write_text(text, "utf-8")
    onnx(own / "drugs")
    write_list(own)  # a name that someone gave stays
    assert {listed_models()[name].file for name in ("drugs", "drugs.onnx")} == {"mine-int8-onnx", "drugs"}
    assert listed_models()["drugs"].file == "mine-int8-onnx"


def test_a_list_of_something_else_is_not_overwritten(own: Path) -> None:
    (own / "models.toml").write_text('default = "x"\n')
    with pytest.raises(ModelError, match=r"dist/models\.toml: unknown key 'default'; known: models"):
        write_list(own)
    assert (own / "models.toml").read_text() == 'default = "x"\n'


def test_the_list_of_this_installation() -> None:
    for row in listed_models().values():
        assert digest(row.path) == row.sha256
        manifest = Manifest.load(manifest_path(row.path))
        assert (manifest.formats, manifest.labels, manifest.license) == (row.formats, row.labels, row.license)
    assert registry.default() in {None, *listed_models()}


def test_the_base_models_of_this_installation() -> None:
    from bioner_edge.convert.architectures import ARCHITECTURES

    assert bases().keys().isdisjoint(listed_models()) and len(bases()) == len({base.repo for base in bases().values()})
    for name, base in bases().items():
        assert name == name.lower() and base.architecture in ARCHITECTURES
        assert base.gated == (base.repo.split("/")[0] in {"meta-llama", "google"})
        assert base.revision and all(file.endswith(".safetensors") for file in base.files)
