"""Deliver a conversion: files and manifests under their final names, listed in models.toml."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bioner_edge.convert import work_folder
from bioner_edge.convert.about import About
from bioner_edge.convert.assemble import SourceModel
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models import models_toml
from bioner_edge.models.manifest import Manifest, digest, digests, manifest_path, sha256
from bioner_edge.report import Figure

__all__ = ["Delivery", "hashes"]

_LIBRARIES = (
    "bioner-edge", "gguf", "llama-cpp-python", "numpy", "onnx", "onnxruntime", "onnxruntime-genai", "optimum-onnx",
    "peft", "tokenizers", "torch", "transformers",
)  # fmt: skip
_DESCRIBING = (
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "adapter_config.json",
)


class Delivery:
    """Finished files on their way from a folder `work` inside `out` to `out` itself."""

    def __init__(self, out: Path, work: Path, about: About) -> None:
        self.out, self.work, self.about = out, work, about
        self.finishing = False
        self._paths: list[Path] = []

    @classmethod
    @contextmanager
    def into(
        cls,
        out: Path,
        about: About,
        names: Sequence[str],
        *,
        overwrite: bool,
        tell: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Delivery]:
        """A delivery of files called `names`; its work folder, with everything not delivered, is removed at the end.

        `tell` receives notes on other conversions' work folders that may be in use. Raises UsageError where one of
        `names` exists, ModelError where the disk or the permissions do not allow writing.
        """
        delivery = None
        try:
            for name in names:
                work_folder.recover(out / name)
                _refuse_replacing(out / name, overwrite)
            if (out / models_toml.NAME).exists():
                models_toml.read(out / models_toml.NAME, out)  # refuse one that does not list converted files at once
            out.mkdir(parents=True, exist_ok=True)
            with work_folder.create(out, about.name, tell) as folder:
                delivery = cls(out, folder, about)
                yield delivery
        except ModelError as error:  # it names a temporary file, which would mislead
            work = str(delivery.work) if delivery else "\0"
            raise ModelError(
                str(error).replace(f"{work}{os.sep}tokens", "adapter's tokenizer").replace(work, str(out))
            ) from None
        except OSError as error:  # numpy's has no strerror, only numbers
            reason = error.strerror or f"could be written only in part ({error}); is the disk full?"
            done = "no file has" if delivery is None or not delivery.finishing else "not every file has"
            raise ModelError(f"{error.filename or out}: {reason}; {done} its final name") from None

    def add(
        self,
        path: Path,
        level: str,
        mix: tuple[Mapping[str, int], float],
        sources: Mapping[str, str],
        figures: Sequence[Figure],
        **more: Mapping[str, Any],
    ) -> Manifest:
        """Write the manifest of `path`, a model in `work`; `mix` is (tensors by type, bits per weight), `more` its
        further keys."""
        manifest = Manifest(
            formats=self.about.formats,
            labels=self.about.labels,
            unit=self.about.unit,
            constraint=self.about.constraint,
            license=self.about.license,
            sha256=digest(path),
            level=level,
            bits_per_weight=round(mix[1], 4),
            tensor_mix=mix[0],
            sources=sources,
            versions=_versions(),
            verification=tuple(figure.to_json() for figure in figures),
            guidelines=dict(self.about.guidelines),
            training=dict(self.about.training),
            files=digests(path) if path.is_dir() else {},
            **more,
        )
        manifest.save(manifest_path(path))
        self._paths.append(path)
        return manifest

    def finish(self, folders: Sequence[Path] = ()) -> list[Path]:
        """Move the files, and whole `folders` of `work`, to `out`. Between the moves of a file and of its manifest the
        hash does not match, so the model is refused. `work_folder.place` replaces an existing folder."""
        self.finishing = True
        for path in (*folders, *self._paths):
            beside = manifest_path(path)
            if path.is_dir():
                work_folder.place(path, self.out / path.name)
                continue
            os.replace(path, self.out / path.name)
            if beside.is_file():
                os.replace(beside, self.out / beside.name)
        models_toml.write_list(self.out)
        return [self.out / path.name for path in self._paths]


def _refuse_replacing(path: Path, overwrite: bool) -> None:
    """Raises UsageError where `path` exists, unless it may be overwritten by something of its kind."""
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"{path}: exists; give --overwrite to replace it")
    if path.is_dir() != (path.suffix not in (".gguf", ".json")):
        raise UsageError(
            f"{path}: is {'a folder' if path.is_dir() else 'a file'}, which --overwrite does not replace; remove it"
        )


def hashes(model: SourceModel) -> dict[str, str]:
    """The SHA-256 of the files that a model is made from: weights, and their configuration; by folder where there are
    two."""
    found = {}
    for role, folder in (("base", model.base), ("adapter", model.adapter)):
        if folder is None:
            continue
        weights = [file for file in model.whole.files if file.parent == folder]
        for file in (*weights, *(folder / name for name in _DESCRIBING)):
            if file.is_file():
                found[file.name if model.adapter is None else f"{role}/{file.name}"] = sha256(file)
    return found


def _versions() -> dict[str, str]:
    """Versions of the libraries that made the file; one that is not installed is omitted."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
