"""What is known of a reader in another process: all that its answers depend on, and no more hashing than it takes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bioner_edge import extraction, loading
from bioner_edge.backends.scripted import Scripted
from bioner_edge.errors import ModelError
from bioner_edge.extract import Extractor
from bioner_edge.extraction import About, FileState
from bioner_edge.models import registry

ASKED: dict[str, Any] = {
    "format": "multi_tag",
    "labels": ["Disease"],
    "constraint": "grounded",
    "guidelines": None,
    "min_score": 0.0,
    "threads": 1,
    "force": False,
}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed, in turn."""
    found: list[str] = []

    def noted(path: Path) -> str:
        found.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(extraction, "sha256", noted)
    monkeypatch.setattr(registry, "sha256", noted)
    return found


@pytest.fixture
def bare(tiny_model: Path, tmp_path: Path) -> Path:
    """A model without a manifest."""
    return Path(shutil.copy(tiny_model, tmp_path / "bare.gguf"))


def about(model: Path, adapter: Path | None = None, **asked: Any) -> About:
    extractor, found = loading.open_reader(str(model), adapter, **ASKED | asked)
    extractor.backend.close()
    return found


def test_a_model_without_a_manifest_is_hashed_where_a_run_is_remembered(bare: Path, hashed: list[str]) -> None:
    found = about(bare)
    assert hashed == [] and found == about(bare)
    digest = hashlib.sha256(bare.read_bytes()).hexdigest()
    assert found.hash_files() == {**found.fingerprint, "model": digest} and hashed == ["bare.gguf"]
    json.dumps(found.hash_files())


def test_one_with_a_manifest_is_hashed_once(tiny_model: Path, hashed: list[str]) -> None:
    found = about(tiny_model)
    assert found.fingerprint["model"] == json.loads(tiny_model.with_suffix(".json").read_text())["sha256"]
    assert found.hash_files() == found.fingerprint and hashed == [tiny_model.name]


def test_a_base_is_not_hashed_again_for_its_adapter(
    tiny_model: Path, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, check = tmp_path / "adapter.gguf", registry.check
    adapter.write_bytes(b"no manifest lies beside it")
    scripted = Extractor(Scripted(lambda ids: np.zeros(257)), format="multi_tag", labels=["Disease"])
    monkeypatch.setattr(loading, "_extractor", lambda *_, **__: scripted)
    monkeypatch.setattr(registry, "check", lambda path, row=None: (path, None) if path == adapter else check(path, row))
    found = about(tiny_model, adapter)
    assert hashed == [tiny_model.name]
    assert found.fingerprint["model"] == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert found.hash_files()["adapter"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert hashed == [tiny_model.name, "adapter.gguf"]


def test_a_model_that_was_changed_since_is_noticed(bare: Path) -> None:
    found = about(bare)
    os.utime(bare, ns=(0, 0))
    assert about(bare) != found
    with pytest.raises(ModelError, match=r"bare\.gguf: changed while it was being loaded; start again"):
        found.hash_files()
    bare.unlink()
    with pytest.raises(ModelError, match=r"bare\.gguf: cannot be read: No such file"):
        FileState.of(bare)


def test_threads_and_the_runtime_belong_to_it(tiny_model: Path) -> None:
    one, two = about(tiny_model), about(tiny_model, threads=2)
    assert (one.fingerprint["threads"], two.fingerprint["threads"]) == (1, 2)
    assert one.fingerprint["runtime"] == two.fingerprint["runtime"]
    assert one.fingerprint["runtime"].startswith("llama-cpp-python 0.3.36, ")
    assert one.fingerprint["runtime"].endswith(" kernels")
    bundled = about(Path("chemdis-9m-onnx"))
    assert bundled.fingerprint["runtime"].startswith("onnxruntime ")
