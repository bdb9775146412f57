"""An ONNX model: a folder of files that refer to nothing outside it.

    model.onnx        the graph
    model.onnx.data   its large tensors
    tokenizer.json    for the tokenizers library
    runtime.json      `Runtime`: what the graph does not contain
    manifest.json     the model's manifest, with the SHA-256 of the files above

The manifest has the same origin as the model: matching hashes prove that nothing broke in transit, not that the model
is trustworthy. So the graph's references are checked whatever the hashes say. onnxruntime before 1.26 follows a
reference out of the folder, and some versions have taken names for memory addresses.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bioner_edge.errors import ModelError, unknown_name
from bioner_edge.models.manifest import PARTS, Manifest, join_hashes, manifest_path, sha256, size
from bioner_edge.models.onnx import graph as onnx_graph
from bioner_edge.models.onnx import weights as onnx_weights
from bioner_edge.models.onnx.graph import External, Graph
from bioner_edge.models.onnx.weights import Weights

__all__ = [
    "Facts",
    "Runtime",
    "check",
    "check_confined",
    "check_hashes",
    "is_model",
    "no_model_message",
    "read",
    "tensor_mix",
]

_GRAPH, _DATA, _RUNTIME, _TOKENIZER = PARTS
_REQUIRED = (_GRAPH, _RUNTIME, _TOKENIZER)
_MAX_BYTES = 1 << 24  # a chat template has a few thousand
_MAX_INT = 1 << 31  # beyond any token id or context


@dataclass(frozen=True, slots=True)
class Runtime:
    """runtime.json: how a model is run.

    `context` is the number of positions it was trained for, `bos` the token id that every prompt starts with, if any,
    `end_tokens` the ids that end an answer. `bos_token` and `eos_token` are the chat template's strings, "" if there is
    none. `cache` is "shared" if past and present may be one buffer of any sufficient length, "grown" if the graph
    returns the past with the new positions appended.
    """

    context: int
    bos: int | None
    end_tokens: tuple[int, ...]
    bos_token: str
    eos_token: str
    chat_template: str | None
    cache: str

    @classmethod
    def load(cls, folder: Path) -> Runtime:
        """Read the runtime.json of a folder. Raises ModelError if it cannot be read or is malformed."""
        path = folder / _RUNTIME
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ModelError(f"{path}: more than {_MAX_BYTES} bytes; convert the model again")
            record = json.loads(path.read_text("utf-8"))
            json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which no output can hold
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}; convert the model again") from None
        except (ValueError, RecursionError):
            raise ModelError(f"{path}: not JSON; convert the model again") from None
        if reason := _runtime_error(record):
            raise ModelError(f"{path}: {reason}; convert the model again")
        return cls(**{**record, "end_tokens": tuple(record["end_tokens"])})

    def to_json(self) -> dict[str, Any]:
        """The contents of the file."""
        return {**asdict(self), "end_tokens": list(self.end_tokens)}


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_INT


# Key -> (whether a value is valid, what is expected).
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "context": (lambda v: _number(v) and v > 0, "a number of positions"),
    "bos": (lambda v: v is None or _number(v), "a token id or null"),
    "end_tokens": (lambda v: isinstance(v, list) and bool(v) and all(map(_number, v)), "a list of token ids"),
    "bos_token": (lambda v: isinstance(v, str), "a string"),
    "eos_token": (lambda v: isinstance(v, str), "a string"),
    "chat_template": (lambda v: v is None or isinstance(v, str), "a string or null"),
    "cache": (lambda v: v in ("shared", "grown"), "shared or grown"),
}


def _runtime_error(record: object) -> str | None:
    """Why the JSON of a runtime.json is refused, or None."""
    if not isinstance(record, dict):
        return "it must be an object"
    if unknown := sorted(record.keys() - _EXPECTED.keys()):
        return unknown_name("key", unknown[0], _EXPECTED)
    for field in fields(Runtime):
        fits, expected = _EXPECTED[field.name]
        if field.name not in record or not fits(record[field.name]):
            return f"{field.name!r} must be {expected}"
    return None


@dataclass(frozen=True, slots=True)
class Facts:
    """The contents of a valid folder."""

    manifest: Manifest
    runtime: Runtime
    graph: Graph
    weights: Weights
    bytes: int


def is_model(path: Path) -> bool:
    """Whether this is a folder with a graph and a manifest, valid or not."""
    return (path / _GRAPH).exists() and manifest_path(path).exists()


def check(folder: Path) -> Facts:
    """Check a model as far as possible without running it. Raises ModelError if anything is wrong."""
    check_hashes(folder)
    return read(folder)


def read(folder: Path) -> Facts:
    """Check a model except for its hashes. Raises ModelError."""
    graph = check_confined(folder)
    weights = onnx_weights.weights(graph, folder / _GRAPH)
    return Facts(Manifest.load(manifest_path(folder)), Runtime.load(folder), graph, weights, size(folder))


def tensor_mix(folder: Path) -> tuple[dict[str, int], float]:
    """(the number of weight tensors by type, the most frequent first; the bits per weight over all of them)"""
    found = onnx_weights.weights(check_confined(folder), folder / _GRAPH)
    return dict(Counter(found.tensors).most_common()), found.bits_per_weight


def check_hashes(folder: Path) -> Manifest:
    """Check the files against the hashes in the manifest, and return it. Raises ModelError, also if the graph refers to
    files outside the folder.

    Every file that is loaded must be in the manifest with its SHA-256.
    """
    path = manifest_path(folder)
    if not path.exists():
        raise ModelError(no_model_message(folder))
    _regular_size(path)
    check_confined(folder)
    manifest = Manifest.load(path)
    here = [name for name in PARTS if name in _REQUIRED or _exists(folder / name)]
    if missing := [name for name in here if name not in manifest.files]:
        which = missing[0] if manifest.files else "the model's files"
        raise ModelError(f"{path}: it has no hash of {which}; convert the model again")
    if more := sorted(manifest.files.keys() - set(PARTS)):
        raise ModelError(f"{path}: {unknown_name('file', more[0], PARTS)}; convert the model again")
    for name, promised in manifest.files.items():
        _regular_size(folder / name)
        if (actual := sha256(folder / name)) != promised:
            differ = f"SHA-256 {actual[:12]}…, but {path} says {promised[:12]}…"
            again = "the file was changed or is incomplete: fetch or convert it again"
            raise ModelError(f"{folder / name}: {differ}; {again}")
    if (actual := join_hashes(manifest.files)) != manifest.sha256:
        differ = f"'sha256' is {manifest.sha256[:12]}…, but of 'files' it would be {actual[:12]}…"
        raise ModelError(f"{path}: {differ}; convert the model again")
    return manifest


def check_confined(folder: Path) -> Graph:
    """Read the graph of a model. Raises ModelError unless all data it refers to are in the folder and complete.

    External data must be in model.onnx.data: no other name is followed.
    """
    if not (folder / _GRAPH).exists():
        raise ModelError(no_model_message(folder))
    sizes = {name: _regular_size(folder / name) for name in PARTS if _exists(folder / name)}
    path = folder / _GRAPH
    graph = onnx_graph.read(path)
    references = [(tensor.name, tensor.external) for tensor in graph.tensors if tensor.external]
    for tensor, external in references:
        if external.location != _DATA:
            what = f"the data of {tensor[:100]!r} lie in {external.location[:100]!r}, not in {_DATA} beside it"
            raise ModelError(f"{path}: {what}: not read; convert the model again")
    if references:
        length = sizes.get(_DATA) or _regular_size(folder / _DATA)
        _check_ranges(folder / _DATA, length, [external for _, external in references])
    return graph


def _exists(path: Path) -> bool:
    """Whether a path exists, even as a broken link."""
    return path.exists() or path.is_symlink()


def _regular_size(path: Path) -> int:
    """The size of a file. Raises ModelError if it is not a regular file, or a link out of its folder."""
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(path.parent.resolve()):
            raise ModelError(f"{path}: a link out of the folder: not read; put the file itself there")
        info = path.stat()
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; convert the model again") from None
    except (OSError, RuntimeError) as error:  # a link loop is a RuntimeError before Python 3.13
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'a link loop'}") from None
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"{path}: not a regular file: not read; convert the model again")
    return info.st_size


def _check_ranges(path: Path, length: int, references: Sequence[External]) -> None:
    """Raise ModelError if a tensor's data end after the end of the file, or overlap another's."""
    end = 0
    before = None
    for external in sorted(references, key=lambda e: (e.offset, e.length)):
        if external.offset + external.length > length:
            end = external.offset + external.length
            raise ModelError(f"{path}: incomplete: it has {length} bytes, data end at {end}; fetch or convert it again")
        if external.offset < end and external != before:  # tied tensors may share all their data
            raise ModelError(f"{path}: the data of two tensors overlap at byte {external.offset}; convert it again")
        end, before = external.offset + external.length, external


def no_model_message(folder: Path) -> str:
    """A message that says what a folder without a graph or a manifest is, and what to do."""
    again = "convert its checkpoint with: bioner-edge convert --to onnx"
    if manifest_path(folder).exists():
        return f"{folder / _GRAPH}: missing; convert the model again"
    if (folder / "genai_config.json").exists():
        return f"{folder}: a model for onnxruntime-genai, which lacks files needed here; {again}"
    if (folder / _GRAPH).exists():
        return f"{folder}: an ONNX model without manifest.json; {again}"
    if (folder / "adapter_config.json").exists():
        return f"{folder}: a LoRA adapter; convert it with: bioner-edge convert --base BASE --adapter {folder}"
    if (folder / "config.json").exists() or any(folder.glob("*.safetensors")):
        return f"{folder}: a checkpoint; convert it with: bioner-edge convert --base {folder}"
    if models := [path.name for path in sorted(folder.iterdir()) if path.suffix == ".gguf" or is_model(path)]:
        more = f" and {len(models) - 3} more" if len(models) > 3 else ""
        return f"{folder}: a folder of models; give one of them: {', '.join(models[:3])}{more}"
    return f"{folder}: no model in it; give a GGUF file, or a folder that bioner-edge convert --to onnx wrote"
