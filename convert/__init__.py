"""From a Hugging Face checkpoint to verified GGUF files with manifests.

    safetensors -> F32 GGUF -> token ids and logits equal? -> each level -> how far from F32? -> manifests -> names

Files get their names only once everything holds; until then they lie in a folder that goes away, whatever happens.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bioner_edge import gguf_header
from bioner_edge.convert import architectures, gguf, quantize, tokenizer, verify
from bioner_edge.convert.checkpoint import Checkpoint
from bioner_edge.errors import UsageError, known
from bioner_edge.models import UNITS, Manifest, manifest_path, sha256

__all__ = ["convert"]

_LIBRARIES = ("bioner-edge", "gguf", "llama-cpp-python", "numpy", "tokenizers", "torch", "transformers")


def convert(
    source: Path,
    out: Path,
    levels: Sequence[str],
    *,
    labels: Sequence[str],
    formats: Sequence[str],
    license: str,
    unit: str = "document",
    name: str | None = None,
    guidelines: Mapping[str, str] | None = None,
    verify_lines: Sequence[str] = verify.LINES,
    extra: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Convert the checkpoint in `source` to `out`/NAME-LEVEL.gguf for each level, a manifest beside each.

    `formats` are those that it was tuned to write, its default first. `name` is the folder's own where it is not
    given; `extra` is what the manifest says of the training. Gives the paths in the order of `levels`. Raises
    UsageError for an unknown level or unit and for no format, ModelError for a checkpoint that cannot be converted and
    for a stage of the verification that fails; then `out` is as it was.
    """
    for level in levels:
        if level not in quantize.LEVELS:
            raise UsageError(known("level", level, quantize.LEVELS))
    if unit not in UNITS:
        raise UsageError(known("unit", unit, UNITS))
    if not formats or isinstance(formats, str):
        raise UsageError(f"formats must be a list of names, not empty, not {formats!r}")
    name = name or source.resolve().name
    if Path(name).name != name:
        raise UsageError(f"the name {name!r} must be one part of a path; say where with the output folder")
    checkpoint = Checkpoint(source)
    architecture = architectures.of(checkpoint.config)
    vocabulary = tokenizer.read(source, architectures.positive(checkpoint.config, "vocab_size"))
    sources = _hashes(checkpoint)

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}.partial-", dir=out) as folder:
        work = Path(folder)
        reference = work / "reference.gguf"
        gguf.write(reference, checkpoint, architecture, vocabulary, "F32", name=name, licence=license)
        gguf_header.check(reference)
        proved = verify.against_source(source, reference, verify_lines)

        made = []
        for level in dict.fromkeys(levels):
            path = work / f"{name}-{level}.gguf"
            figures = list(proved)
            if level in gguf.FLOATS:
                gguf.write(path, checkpoint, architecture, vocabulary, level, name=name, licence=license)
            else:
                quantize.quantize(reference, path, level)
            if level != "F32":
                figures += verify.quantized(reference, path, level, verify_lines)
            mix, bits = quantize.tensor_mix(path)
            Manifest(
                formats=tuple(formats),
                labels=tuple(labels),
                unit=unit,
                licence=license,
                sha256=sha256(path),
                level=level,
                bits_per_weight=round(bits, 4),
                tensor_mix=mix,
                sources=sources,
                versions=_versions(),
                verification=tuple(figure.to_json() for figure in figures),
                guidelines=dict(guidelines or {}),
                training=dict(extra or {}),
            ).save(manifest_path(path))
            made.append(path)

        return [_moved(path, out) for path in made]


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """The SHA-256 of what the model is made from, by file name."""
    extras = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    files = [*checkpoint.files, *(checkpoint.folder / extra for extra in extras)]
    return {file.name: sha256(file) for file in files if file.is_file()}


def _versions() -> dict[str, str]:
    """What made the file; a library that is not installed had no part in it."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _moved(path: Path, out: Path) -> Path:
    """Give a finished file and its manifest their place. Between the moves its hash does not fit: it is refused."""
    os.replace(path, out / path.name)
    os.replace(manifest_path(path), out / manifest_path(path).name)
    return out / path.name
