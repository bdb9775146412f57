"""Which file a name means, and that it is the file that was meant."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bioner_edge import models
from bioner_edge.errors import ModelError
from bioner_edge.models import Manifest, find, listed, manifest_path, sha256


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


# The smallest sound GGUF: no tensors, one key.
KEY = b"general.architecture"
GGUF = b"GGUF" + struct.pack("<I", 3) + u64(0) + u64(1) + u64(len(KEY)) + KEY + struct.pack("<I", 8) + u64(5) + b"llama"
GGUF += bytes(-len(GGUF) % 32)
DIGEST = hashlib.sha256(GGUF).hexdigest()
MANIFEST = Manifest(
    formats=("multi_tag", "conv_term"),
    labels=("Chemical", "Disease"),
    unit="sentence",
    licence="Apache-2.0",
    sha256=DIGEST,
    level="Q8_0",
    bits_per_weight=8.5,
    tensor_mix={"Q8_0": 3},
    sources={"model.safetensors": "0" * 64},
    versions={"gguf": "0.19.0"},
    verification=({"stage": "token ids", "figure": 0.0, "at_most": 0.0},),
    guidelines={"Chemical": "a substance"},
    training={"seed": 1},
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with one listed model, `small`."""
    monkeypatch.setattr(models, "_PACKAGE", tmp_path)
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
        "licence": "MIT",
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
    for key in ("verification", "guidelines", "training"):
        del record[key]
    (tmp_path / "m.json").write_text(json.dumps(record))
    assert Manifest.load(tmp_path / "m.json") == replace(MANIFEST, verification=(), guidelines={}, training={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": []}, "'formats' must be a list of strings, not empty"),
        ({"formats": "multi_tag"}, "'formats' must be a list of strings, not empty"),
        ({"format": "multi_tag"}, "unknown key 'format'; known: formats, labels"),
        ({"labels": []}, "'labels' must be a list of strings, not empty"),
        ({"labels": [1]}, "'labels' must be a list of strings, not empty"),
        ({"unit": "page"}, "'unit' must be sentence or document"),
        ({"unit": []}, "'unit' must be sentence or document"),
        ({"sha256": "A" * 64}, "'sha256' must be 64 hexadecimal digits"),
        ({"bits_per_weight": 0}, "'bits_per_weight' must be a positive number"),
        ({"tensor_mix": {"Q8_0": "3"}}, "'tensor_mix' must be counts by type"),
        ({"verification": {}}, "'verification' must be a list of objects"),
        ({"guidelines": ["a"]}, "'guidelines' must be texts by label"),
        ({"training": 1}, "'training' must be an object"),
        ({"colour": "red"}, "unknown key 'colour'; known: formats, labels"),
    ],
)
def test_malformed_manifests(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    MANIFEST.save(tmp_path / "m.json")
    record = json.loads((tmp_path / "m.json").read_text("utf-8"))
    (tmp_path / "m.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(ModelError) as caught:
        Manifest.load(tmp_path / "m.json")
    assert f"m.json: malformed manifest: {message}" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\0", "[]", '{"formats": ["x"]}'])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ModelError, match=r"m\.json: .*; convert the model again"):
        Manifest.load(tmp_path / "m.json")


@pytest.mark.parametrize("name", [None, "small"])
def test_a_listed_model(package: Path, name: str | None) -> None:
    assert find(name) == (package / "data" / "small.gguf", MANIFEST)


def test_a_listed_file_that_changed(package: Path) -> None:
    table(package, sha256="1" * 64)
    with pytest.raises(ModelError) as caught:
        find("small")
    told = (
        f"small.gguf: SHA-256 {DIGEST[:12]}…, but models.toml says 111111111111…; the file was changed or is incomplete"
    )
    assert told in str(caught.value)


def test_a_listed_model_needs_its_manifest(package: Path) -> None:
    (package / "data" / "small.json").unlink()
    with pytest.raises(ModelError, match=r"small\.json: the manifest of a listed model is missing"):
        find("small")


def test_an_unknown_name(package: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find("large")
    assert str(caught.value) == "unknown model 'large'; known: small; or give the path of a GGUF file"


def test_no_model_is_bundled(package: Path) -> None:
    table(package, default=None)
    with pytest.raises(ModelError, match="no model is bundled with this installation; give the path of a GGUF file"):
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
    with pytest.raises(ModelError, match="no GGUF file"):
        find(str(tmp_path / "mine.gguf"))


def test_what_the_list_says(package: Path) -> None:
    assert (listed()["small"].formats, listed()["small"].labels) == (("multi_tag", "conv_term"), ("A",))


@pytest.mark.parametrize("content", ["[models.small]\nfile = 'x'", "[models.small]\nlabels = 3\nformats = ['x']"])
def test_a_row_that_cannot_be_read(package: Path, content: str) -> None:
    (package / "models.toml").write_text(content)
    with pytest.raises(ModelError, match=r"\[models\.small\] must have exactly file, sha256, formats, labels, licence"):
        listed()


@pytest.mark.parametrize("formats", ["multi_tag", [], [7]])
def test_a_row_whose_formats_are_no_list_of_names(package: Path, formats: object) -> None:
    table(package, formats=formats)
    with pytest.raises(ModelError, match=r"\[models\.small\] .*; formats and labels are lists, not empty"):
        listed()


def test_a_list_that_cannot_be_read(package: Path) -> None:
    (package / "models.toml").write_text("default =")
    with pytest.raises(ModelError, match=r"models\.toml: the list of models cannot be read"):
        find(None)


def test_the_list_of_this_installation() -> None:
    for row in listed().values():
        assert sha256(row.path) == row.sha256
        manifest = Manifest.load(manifest_path(row.path))
        assert (manifest.formats, manifest.labels, manifest.licence) == (row.formats, row.labels, row.licence)
    assert models.default() in {None, *listed()}
