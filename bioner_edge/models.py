"""Which file is meant by a model's name, and whether it is the file that was meant.

`models.toml` lists models with their hashes; every converted file has a manifest beside it (`X.gguf`, `X.json`) that
says what it was made from and what it can do. A listed file whose hash is another is refused, as is a file that is
not what its manifest says; an unlisted file is used only where its path is given.

The package has a list of its own. $BIONER_MODELS can name a folder with another, of the user's own files.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import gguf_header, listing
from .errors import ModelError, known
from .listing import Base, Listing, entry, write_list
from .manifest import UNITS, Manifest, manifest_path, sha256

__all__ = [
    "UNITS",
    "Base",
    "Listing",
    "Manifest",
    "bases",
    "checked",
    "default",
    "entry",
    "find",
    "listed",
    "manifest_path",
    "refuse_other_base",
    "sha256",
    "write_list",
]

_PACKAGE = Path(__file__).parent
_OWN = "BIONER_MODELS"


def _bundled() -> listing.List:
    """The package's list: a copy lies in the installed package, in a checkout it stands at the root."""
    inside = _PACKAGE / listing.NAME
    path = inside if inside.exists() else _PACKAGE.parent / listing.NAME
    return listing.read(path, _PACKAGE / "data", ("default", "models", "bases"))


def listed() -> dict[str, Listing]:
    """The models that can be named: the bundled ones, then those of $BIONER_MODELS.

    Raises ModelError for a list that cannot be read, and for a name that both lists have.
    """
    bundled = _bundled()
    rows = dict(bundled.models)
    if folder := os.environ.get(_OWN):
        path = Path(folder, listing.NAME)
        for name, row in listing.read(path, Path(folder)).models.items():
            if name in rows or name in bundled.bases:
                raise ModelError(f"{path}: [models.{name}] bioner-edge has a model of this name; choose another")
            rows[name] = row
    return rows


def bases() -> dict[str, Base]:
    """The models on the hub that can be pulled by name. Raises ModelError for a list that cannot be read."""
    return dict(_bundled().bases)


def default(format: str | None = None) -> str | None:
    """The name of the model that is used where none is named; None where no model is bundled.

    Where it was not tuned for `format`, the first listed one that was takes its place, if there is one.
    """
    name = _bundled().default
    if format is None or name is None:
        return name
    rows = listed()
    if name not in rows or format in rows[name].formats:
        return name
    return next((other for other, row in rows.items() if format in row.formats), name)


def find(name_or_path: str | None, format: str | None = None) -> tuple[Path, Manifest | None]:
    """The file of a model and its manifest, both checked; None stands for the default model (of a format).

    A listed name is that file and no other. A path may be any GGUF file; its manifest is None where none
    lies beside it. Raises ModelError for an unknown name, a missing or damaged file, or a hash that is not
    the one written down.
    """
    rows = listed()
    name = name_or_path if name_or_path is not None else default(format)
    if name is None:
        raise ModelError("no model is bundled with this installation; give the path of a GGUF file")
    if name in rows:
        return checked(rows[name].path, rows[name])
    path = Path(name)
    if not (path.exists() or path.suffix == ".gguf" or "/" in name or os.sep in name):
        pull = f"; {name!r} is a base model: pull and convert it" if name in bases() else ""
        raise ModelError(f"{known('model', name, rows or ['none'])}; or give the path of a GGUF file{pull}")
    return checked(path)


def checked(path: Path, row: Listing | None = None) -> tuple[Path, Manifest | None]:
    """`path` and its manifest, once header and hashes hold: the manifest's, and that of its `row` in a list."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    gguf_header.check(path)
    beside = manifest_path(path)
    manifest = Manifest.load(beside) if beside.is_file() else None
    promises = [(row.sha256, row.said_by)] if row else []
    promises += [(manifest.sha256, str(beside))] if manifest else []
    actual = sha256(path) if promises else ""
    for promised, where in promises:
        if promised != actual:
            told = f"SHA-256 {actual[:12]}…, but {where} says {promised[:12]}…"
            raise ModelError(f"{path}: {told}; the file was changed or is incomplete: fetch or convert it again")
    if row and manifest is None:
        again = "install bioner-edge" if row.folder == _PACKAGE / "data" else "convert the model"
        raise ModelError(f"{beside}: the manifest of a listed model is missing; {again} again")
    return path, manifest


def refuse_other_base(adapter: Path, its: Manifest | None, model: Path, of_model: Manifest | None) -> None:
    """Raises ModelError where the manifests know that the adapter was tuned on other weights of the same shape."""
    tuned_on = {name: digest for name, digest in (its.sources if its else {}).items() if name.startswith("base/")}
    for name, digest in tuned_on.items():
        mine = of_model.sources.get(name.removeprefix("base/")) if of_model else None
        if name.endswith(".safetensors") and mine not in (None, digest):
            raise ModelError(f"{adapter}: was tuned on another model than {model}; give the one that it was tuned on")
